// The simulated replica against the runtime's own scheduler: the same steps at the same times, as
// long as the KV cache has room (where it has none, the simulation takes a prompt's space as a
// whole).
#include <gtest/gtest.h>

#include <memory>
#include <random>

#include "operator/simulation/replica.h"
#include "runtime/scheduler/scheduler.h"

namespace quern::simulation {
namespace {

constexpr int32_t kBlock = 16;

struct Case {
  ReplicaProfile profile;
  Load load;
};

Case RandomCase(uint32_t seed) {
  std::mt19937 random(seed);
  const auto real = [&](double low, double high) {
    return std::uniform_real_distribution<>(low, high)(random);
  };
  const auto whole = [&](int low, int high) {
    return std::uniform_int_distribution<>(low, high)(random);
  };
  Case out;
  out.profile.times = {real(0.001, 0.02), real(0, 0.002), real(1e-5, 1e-3), real(0, 1e-6),
                       real(0, 1e-6)};
  out.profile.max_sequences = whole(1, 10);
  out.profile.max_batch_tokens = whole(out.profile.max_sequences, 200);
  out.profile.max_decode_slowdown = real(1, 4);
  out.profile.kv_tokens = 1'000'000;
  double at = 0;
  const double rate = real(0.5, 20);
  for (int i = 0; i < 50; ++i) {
    bench::TraceRequest request;
    request.at = at;
    request.prompt_tokens = whole(1, 600);
    request.output_tokens = whole(1, 80);
    out.load.push_back(request);
    at += whole(0, 4) == 0 ? 0 : std::exponential_distribution<>(rate)(random);
  }
  return out;
}

StepShape ShapeOf(const SchedulerOutput& step) {
  StepShape shape{.decode_sequences = step.num_decodes};
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    const int64_t tokens = step.sequences[i].num_tokens;
    const int64_t cached = step.sequences[i].sequence->cached_tokens;
    if (static_cast<int32_t>(i) >= step.num_decodes) {
      shape.prefill_tokens += static_cast<double>(tokens);
    }
    shape.attended_tokens += tokens * cached + tokens * (tokens + 1) / 2;
    shape.loaded_tokens += cached + tokens;
  }
  return shape;
}

// The engine's loop, with the time that its steps are predicted to take.
std::vector<Outcome> WithTheScheduler(const Case& c) {
  std::vector<Outcome> outcomes(c.load.size());
  SchedulerState state(1'000'000 / kBlock, kBlock);
  std::vector<std::unique_ptr<Sequence>> sequences;
  double now = 0;
  size_t next = 0;
  while (next < c.load.size() || !state.empty()) {
    if (state.empty()) now = std::max(now, c.load[next].at);
    for (; next < c.load.size() && c.load[next].at <= now; ++next) {
      auto sequence = std::make_unique<Sequence>();
      sequence->arrival = next;
      sequence->prompt_tokens = sequence->total_tokens = c.load[next].prompt_tokens;
      state.Add(sequence.get());
      sequences.push_back(std::move(sequence));
    }
    SchedulerLimits limits{.max_sequences = c.profile.max_sequences,
                           .max_batch_tokens = c.profile.max_batch_tokens};
    limits.max_prefill_tokens =
        PrefillBudget(c.profile.times, PressureOf(state, limits), c.profile.max_decode_slowdown,
                      std::min(4, limits.max_batch_tokens), limits.max_batch_tokens);
    const SchedulerOutput step = Schedule(state, limits);
    now += c.profile.times.Predict(ShapeOf(step));
    state.Commit(step);
    for (const ScheduledSequence& scheduled : step.sequences) {
      if (!scheduled.samples) continue;
      Sequence& sequence = *scheduled.sequence;
      Outcome& outcome = outcomes[sequence.arrival];
      if (sequence.total_tokens++ == sequence.prompt_tokens) outcome.first_token = now;
      if (sequence.total_tokens - sequence.prompt_tokens < c.load[sequence.arrival].output_tokens) {
        continue;
      }
      outcome.finish = now;
      state.Remove(&sequence);
    }
  }
  return outcomes;
}

TEST(SimulatedReplica, TakesTheStepsThatTheRuntimesSchedulerTakes) {
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(seed);
    const Case c = RandomCase(seed);
    const auto want = WithTheScheduler(c);
    std::vector<Outcome> got(c.load.size());
    GapHistogram gaps;
    SimReplica replica(c.profile, c.load, got, gaps);
    for (uint32_t i = 0; i < c.load.size(); ++i) {
      replica.AdvanceTo(c.load[i].at);
      replica.Add(i);
    }
    replica.AdvanceTo(1e9);
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i].first_token, want[i].first_token, 1e-7) << i;
      ASSERT_NEAR(got[i].finish, want[i].finish, 1e-7) << i;
    }
  }
}

}  // namespace
}  // namespace quern::simulation
