// The invariants of the autoscaler over generated histories. A failure prints its seed.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "operator/autoscaling/decide.h"
#include "tests/unit/operator/autoscaling/tick.h"

namespace quern::control {
namespace {

constexpr int kSeeds = 300;

struct World {
  explicit World(uint32_t seed) : random(seed) {}

  double Uniform(double low, double high) {
    return std::uniform_real_distribution<>(low, high)(random);
  }
  int64_t Int(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  }
  bool Chance(double p) { return Uniform(0, 1) < p; }

  ScalingPolicy MakePolicy() {
    ScalingPolicy policy;
    policy.min_replicas = Int(1, 4);
    policy.max_replicas = policy.min_replicas + Int(0, 12);
    policy.target_tokens_per_second = std::exp(Uniform(0, 8));
    policy.target_utilization = Uniform(0.1, 1);
    policy.panic_window = Int(5, 30) * 1000;
    policy.stable_window = policy.panic_window + Int(0, 120) * 1000;
    policy.scale_down_delay = Int(0, 200) * 1000;
    return policy;
  }

  ScalingObservation MakeObservation(const ScalingPolicy& policy, int64_t current) {
    ScalingObservation seen;
    seen.current_replicas = current;
    seen.expected_pods = Int(0, current);
    seen.fresh_pods = Chance(0.8) ? seen.expected_pods : Int(0, seen.expected_pods);
    const double rate = std::exp(Uniform(-2, 10));
    const auto fill = [&](WindowIncrease& window, Millis length, double factor) {
      window.covered_seconds = Chance(0.7) ? static_cast<double>(length) / 1000 : Uniform(0, 60);
      window.increase[Field::kAdmittedPromptTokens] = rate * factor * window.covered_seconds;
      window.increase[Field::kAdmittedRequests] = Uniform(0, 3) * window.covered_seconds;
      window.increase[Field::kRejectedRequests] = Chance(0.1) ? Uniform(0, 50) : 0;
    };
    fill(seen.stable, policy.stable_window, 1);
    fill(seen.panic, policy.panic_window, Uniform(0, 4));
    seen.recent[Field::kFinishedRequests] = static_cast<double>(Int(0, 20));
    seen.recent[Field::kGeneratedTokens] = Uniform(0, 4000);
    seen.recent[Field::kAdmittedRequests] = static_cast<double>(Int(0, 20));
    seen.recent[Field::kAdmittedPromptTokens] = Uniform(0, 8000);
    seen.waiting_requests = Chance(0.3) ? static_cast<double>(Int(0, 100)) : 0;
    seen.ready_seconds = Uniform(0, 400);
    return seen;
  }

  std::mt19937 random;
};

TEST(DecideProperties, ReplicasStayWithinTheLimitsAndTheStateStaysBounded) {
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    World world(seed);
    ScalingPolicy policy = world.MakePolicy();
    ScalingState state;
    int64_t replicas = world.Int(0, 30);
    for (Millis now = 0; now < 400 * kTick; now += kTick) {
      if (world.Chance(0.01)) policy = world.MakePolicy();
      const auto d = Decide(policy, world.MakeObservation(policy, replicas), state, now);
      ASSERT_GE(d.replicas, policy.min_replicas);
      ASSERT_LE(d.replicas, policy.max_replicas);
      ASSERT_LE(d.state.needs.size(), 40u);
      ASSERT_TRUE(std::isfinite(d.explanation.demand_tokens_per_second));
      replicas = d.replicas;
      state = d.state;
    }
  }
}

TEST(DecideProperties, MissingMetricsNeverScaleDownExceptToALoweredMaximum) {
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    World world(seed);
    ScalingPolicy policy = world.MakePolicy();
    ScalingState state;
    int64_t replicas = policy.max_replicas;
    for (Millis now = 0; now < 400 * kTick; now += kTick) {
      if (world.Chance(0.01)) policy = world.MakePolicy();
      const auto seen = world.MakeObservation(policy, replicas);
      const auto d = Decide(policy, seen, state, now);
      if (seen.fresh_pods < seen.expected_pods || seen.expected_pods == 0) {
        ASSERT_GE(d.replicas, std::min(seen.current_replicas, policy.max_replicas));
      }
      replicas = d.replicas;
      state = d.state;
    }
  }
}

// Runs a constant demand of `tokens_per_second` and returns the replicas after each tick.
std::vector<int64_t> UnderConstantDemand(const ScalingPolicy& policy, World& world,
                                         double tokens_per_second, double noise, int64_t replicas,
                                         int ticks) {
  std::vector<int64_t> out;
  ScalingState state;
  for (int i = 0; i < ticks; ++i) {
    ScalingObservation seen;
    seen.current_replicas = seen.expected_pods = seen.fresh_pods = replicas;
    const auto fill = [&](WindowIncrease& window, Millis length) {
      window.covered_seconds = static_cast<double>(length) / 1000;
      window.increase[Field::kAdmittedPromptTokens] =
          tokens_per_second * world.Uniform(1 - noise, 1 + noise) * window.covered_seconds;
    };
    fill(seen.stable, policy.stable_window);
    fill(seen.panic, policy.panic_window);
    const auto d = Decide(policy, seen, state, i * kTick);
    state = d.state;
    out.push_back(replicas = d.replicas);
  }
  return out;
}

TEST(DecideProperties, ConstantDemandSettles) {
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    World world(seed);
    ScalingPolicy policy = world.MakePolicy();
    policy.scale_down_delay = std::max<Millis>(policy.scale_down_delay, 30'000);
    const double demand = policy.target_tokens_per_second * world.Uniform(0, 12);
    const auto replicas = UnderConstantDemand(policy, world, demand, 0.1, world.Int(1, 20), 600);
    // One way only after the first 2 x (delay + stable window); and as many as are needed.
    const size_t settled = 2 * (policy.scale_down_delay + policy.stable_window) / kTick;
    const int64_t needed = static_cast<int64_t>(std::ceil(
        demand * 0.9 / (policy.target_tokens_per_second * policy.target_utilization) - 1e-6));
    EXPECT_GE(replicas.back(), std::clamp(needed, policy.min_replicas, policy.max_replicas));
    int changes = 0;
    for (size_t i = settled + 1; i < replicas.size(); ++i)
      changes += replicas[i] != replicas[i - 1];
    // Noise may push a demand at the edge of n replicas over it, once.
    EXPECT_LE(changes, 2);
  }
}

TEST(DecideProperties, MoreDemandNeverGivesFewerReplicas) {
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    World world(seed);
    const ScalingPolicy policy = world.MakePolicy();
    ScalingState state;
    int64_t replicas = world.Int(1, 12);
    for (Millis now = 0; now < 100 * kTick; now += kTick) {
      const auto seen = world.MakeObservation(policy, replicas);
      auto more = seen;
      for (WindowIncrease* window : {&more.stable, &more.panic}) {
        window->increase[Field::kAdmittedPromptTokens] += world.Uniform(0, 1000);
        window->increase[Field::kAdmittedRequests] += world.Uniform(0, 10);
      }
      more.waiting_requests += world.Uniform(0, 10);
      const auto a = Decide(policy, seen, state, now);
      const auto b = Decide(policy, more, state, now);
      ASSERT_LE(a.replicas, b.replicas);
      replicas = a.replicas;
      state = a.state;
    }
  }
}

TEST(DecideProperties, ARestartNeverScalesDownSoonerThanNoRestart) {
  for (uint32_t seed = 0; seed < kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    World world(seed);
    const ScalingPolicy policy = world.MakePolicy();
    ScalingState state;
    int64_t replicas = policy.max_replicas;
    const int restart = static_cast<int>(world.Int(0, 99));
    for (int i = 0; i < 100; ++i) {
      const auto seen = world.MakeObservation(policy, replicas);
      const auto kept = Decide(policy, seen, state, i * kTick);
      if (i == restart) {
        // What is learned comes back from the status.
        const auto fresh =
            Decide(policy, seen, StateWithMeanOutput(MeanOutputTokens(state)), i * kTick);
        if (policy.scale_down_delay > 0) {
          ASSERT_GE(fresh.replicas, std::min(replicas, policy.max_replicas));
        }
      }
      replicas = kept.replicas;
      state = kept.state;
    }
  }
}

}  // namespace
}  // namespace quern::control
