#include "operator/reconcilers/scrape_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace quern::control {
namespace {

using ::testing::ElementsAre;

// Rounds of one second each; counts how often each candidate was asked.
std::vector<int> Play(std::vector<ScrapeCandidate> candidates, double budget, int rounds) {
  std::vector<int> asked(candidates.size(), 0);
  for (Millis round = 1; round <= rounds; ++round) {
    for (const size_t i : PlanScrapes(candidates, budget)) {
      ++asked[i];
      candidates[i].asked = round;
      if (candidates[i].cost <= kSlowSeconds) continue;
      for (ScrapeCandidate& other : candidates)
        if (other.endpoint == candidates[i].endpoint) other.endpoint_asked = round;
    }
  }
  return asked;
}

TEST(PlanScrapes, AsksEveryPodWhereThereIsTimeForAll) {
  EXPECT_THAT(PlanScrapes({{0, 5, 0, 1.0}, {0, 3, 0, 0.01}, {1, 9, 0, 0}}, 10),
              ElementsAre(2, 1, 0));  // the quickest first
  EXPECT_TRUE(PlanScrapes({}, 10).empty());
}

TEST(PlanScrapes, QuickPodsAreAskedInEveryRoundHoweverManySlowOnesThereAre) {
  std::vector<ScrapeCandidate> candidates(500, {0, 0, 0, 1.45});
  for (int i = 0; i < 50; ++i) candidates.push_back({1, 0, 0, 0.01});
  const std::vector<int> asked = Play(candidates, 16, 100);
  for (size_t i = 500; i < 550; ++i) EXPECT_EQ(asked[i], 100);
  for (size_t i = 0; i < 500; ++i) EXPECT_GE(asked[i], 1);
}

TEST(PlanScrapes, ManyThatAreJustNotSlowComeAfterTheFewOfOthers) {
  std::vector<ScrapeCandidate> candidates(1000, {0, 0, 0, 0.19});
  candidates.push_back({1, 0, 0, 0.15});
  candidates.push_back({2, 0, 0, 1.0});  // slow without malice
  const std::vector<int> asked = Play(candidates, 32, 50);
  EXPECT_EQ(asked[1000], 50);
  EXPECT_EQ(asked[1001], 50);
}

TEST(PlanScrapes, SlowPodsOfManyEndpointsTakeTurns) {
  std::vector<ScrapeCandidate> candidates;
  for (size_t endpoint = 0; endpoint < 30; ++endpoint)
    for (int pod = 0; pod < 100; ++pod) candidates.push_back({endpoint, 0, 0, 1.5});
  candidates.push_back({99, 0, 0, 1.5});                     // an endpoint with a single slow pod
  const std::vector<int> asked = Play(candidates, 15, 310);  // 10 in a round
  // A 31st of the turns, as every endpoint: each third or fourth round.
  EXPECT_GE(asked.back(), 77);
  std::map<size_t, int> by_endpoint;
  for (size_t i = 0; i < candidates.size(); ++i) by_endpoint[candidates[i].endpoint] += asked[i];
  for (const auto& [endpoint, count] : by_endpoint) {
    EXPECT_GE(count, 310 / 4) << endpoint;
    EXPECT_LE(count, 310 / 3 + 1) << endpoint;
  }
}

TEST(ExpectedCost, FallsSlowlyAndRisesAtOnce) {
  EXPECT_EQ(ExpectedCost(0.01, 1.4), 1.4);
  double cost = 1.4;
  int quick = 0;
  for (; cost > kSlowSeconds; ++quick) cost = ExpectedCost(cost, 0.01);
  EXPECT_GE(quick, 15);
  EXPECT_LE(quick, 25);
}

}  // namespace
}  // namespace quern::control
