#include "operator/simulation/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "operator/simulation/report.h"
#include "tests/unit/operator/simulation/scenarios.h"

namespace quern::simulation {
namespace {

constexpr double kTargets[] = {0.5, 3, 50};

TEST(Simulate, EveryRequestIsServedWholeWhateverThePolicy) {
  for (uint32_t seed = 1; seed <= 25; ++seed) {
    const Scenario scenario = RandomScenario(seed, 120);
    int64_t prompts = 0, answers = 0, refused = 0;
    for (const auto& request : scenario.load) {
      if (request.prompt_tokens + request.output_tokens > scenario.profile.kv_tokens) {
        ++refused;
        continue;
      }
      prompts += request.prompt_tokens, answers += request.output_tokens;
    }
    for (const PolicyKind& kind : PolicyKinds()) {
      for (const double target : kTargets) {
        SCOPED_TRACE(fmt::format("seed {} {} {}", seed, kind.name, target));
        const auto policy = MakePolicy(kind.name, target, scenario.limits);
        RunTrace trace;
        const RunResult result = Simulate(scenario, *policy, &trace);
        ASSERT_EQ(result.refused, refused);
        ASSERT_EQ(result.prompt_tokens, prompts);
        ASSERT_EQ(result.output_tokens, answers);
        ASSERT_LE(result.peak_replicas, scenario.limits.max_replicas);
        ASSERT_LE(result.utilization, 1 + 1e-9);
        for (size_t i = 0; i < scenario.load.size(); ++i) {
          if (trace.outcomes[i].refused) continue;
          ASSERT_GT(trace.outcomes[i].first_token, scenario.load[i].at);
          ASSERT_GE(trace.outcomes[i].finish, trace.outcomes[i].first_token);
        }
        // Some time's worth of the least, and at no time more than the most besides what drains.
        ASSERT_GE(result.replica_hours * 3600 * (1 + 1e-9),
                  static_cast<double>(scenario.limits.min_replicas) * scenario.load.back().at);
      }
    }
  }
}

// A tick comes long after the last finish: what it would start has no place in the run.
TEST(Simulate, ThereIsNoScalingAfterTheLastFinish) {
  Scenario scenario = RandomScenario(2, 1);
  scenario.profile.kv_tokens = 100'000;
  scenario.limits = {1, 30};
  for (scenario.seed = 1; scenario.seed < 20; ++scenario.seed) {
    const auto policy = MakeHpaTokens(1e-3, scenario.limits);
    RunTrace trace;
    const RunResult result = Simulate(scenario, *policy, &trace);
    for (const Fleet::Life& life : trace.lives) EXPECT_LE(life.created, result.seconds);
    EXPECT_GE(result.replica_hours * 3600, result.seconds * (1 - 1e-9));
  }
}

TEST(Compare, TheSameScenarioGivesTheSameWhateverTheThreads) {
  const Scenario scenario = RandomScenario(5, 100);
  CompareOptions options;
  options.bound_grid = 100;
  for (const PolicyKind& kind : PolicyKinds()) options.policies.emplace_back(kind.name);
  options.policies.emplace_back(kClairvoyant);
  const auto one = EntriesJson("t", scenario, Compare(scenario, options));
  options.for_each = [](size_t count, const std::function<void(size_t)>& call) {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < count; ++i) {
      threads.emplace_back(call, count - 1 - i);
      if (threads.size() == 4) threads.clear();
    }
  };
  options.traces = true;
  const auto other = EntriesJson("t", scenario, Compare(scenario, options));
  EXPECT_EQ(one, other);
}

TEST(Compare, TheChosenTargetIsTheCheapestThatAttainsAsMuchAsQuern) {
  for (uint32_t seed = 20; seed < 26; ++seed) {
    const Scenario scenario = RandomScenario(seed, 100);
    CompareOptions options;
    options.bound_grid = 100;
    options.policies = {"knative", "fixed"};
    const Comparison comparison = Compare(scenario, options);
    for (const Entry& entry : comparison.entries) {
      SCOPED_TRACE(fmt::format("seed {} {}", seed, entry.policy));
      double cheapest = 1e300, best = 0;
      for (const double target : TargetGrid(entry.policy, comparison.tokens_per_second, scenario)) {
        const auto policy = MakePolicy(entry.policy, target, scenario.limits);
        const RunResult result = Simulate(scenario, *policy);
        best = std::max(best, result.attainment);
        if (result.attainment >= comparison.attainment) {
          cheapest = std::min(cheapest, result.replica_hours);
        }
      }
      if (cheapest < 1e300) {
        EXPECT_EQ(entry.result.replica_hours, cheapest);
        EXPECT_GE(entry.result.attainment, comparison.attainment);
      } else {
        EXPECT_EQ(entry.result.attainment, best);
      }
    }
  }
}

TEST(Compare, AGivenTargetIsNotSearchedFor) {
  const Scenario scenario = RandomScenario(3);
  CompareOptions options;
  options.bound_grid = 100;
  options.policies = {"knative", "quern"};
  options.targets = {{"knative", 3.5}, {"quern", 1000}};
  const Comparison comparison = Compare(scenario, options);
  EXPECT_EQ(comparison.entries[0].target, 3.5);
  EXPECT_EQ(comparison.entries[1].target, 1000);
}

TEST(Objective, BothPartsCount) {
  const Objective objective{1, 0.1};
  bench::TraceRequest request;
  request.at = 10;
  request.output_tokens = 11;
  EXPECT_TRUE(objective.Met(request, {11, 12, false}));
  EXPECT_FALSE(objective.Met(request, {11.1, 12, false}));
  EXPECT_FALSE(objective.Met(request, {11, 12.1, false}));
  EXPECT_FALSE(objective.Met(request, {-1, -1, true}));
  request.output_tokens = 1;
  EXPECT_TRUE(objective.Met(request, {11, 11, false}));
}

}  // namespace
}  // namespace quern::simulation
