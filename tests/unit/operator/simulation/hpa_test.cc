// Kubernetes' HPA: examples worked by hand from its algorithm.
#include <gtest/gtest.h>

#include "tests/unit/operator/simulation/views.h"

namespace quern::simulation {
namespace {

TEST(Hpa, WithinATenthOfTheTargetNothingChanges) {
  const auto policy = MakeHpaQueue(10, {1, 100});
  EXPECT_EQ(policy->Decide(ViewOf(15, 4, 0, 11)), 4);
  EXPECT_EQ(policy->Decide(ViewOf(30, 4, 0, 11.5)), 5);  // ceil(4 x 1.15)
}

TEST(Hpa, UpByFourPodsOrTwiceInFifteenSeconds) {
  const auto policy = MakeHpaQueue(1, {1, 1000});
  EXPECT_EQ(policy->Decide(ViewOf(15, 1, 0, 100)), 5);
  EXPECT_EQ(policy->Decide(ViewOf(30, 5, 0, 100)), 10);
  EXPECT_EQ(policy->Decide(ViewOf(45, 10, 0, 100)), 20);
  EXPECT_EQ(MakeHpaQueue(1, {1, 3})->Decide(ViewOf(15, 1, 0, 100)), 3);
}

TEST(Hpa, DownByTheLargestRecommendationOfFiveMinutes) {
  const auto policy = MakeHpaQueue(10, {1, 100});
  EXPECT_EQ(policy->Decide(ViewOf(0, 10, 0, 10)), 10);
  for (double now = 15; now < 300; now += 15) {
    ASSERT_EQ(policy->Decide(ViewOf(now, 10, 0, now < 150 ? 5 : 1)), 10) << now;
  }
  EXPECT_EQ(policy->Decide(ViewOf(300, 10, 0, 1)), 5);  // the one of 10 is 300 s old
  EXPECT_EQ(policy->Decide(ViewOf(315, 5, 0, 1)), 5);   // those of 5 are not
  EXPECT_EQ(policy->Decide(ViewOf(450, 5, 0, 1)), 1);   // all are; now 5 x 0.1
}

TEST(Hpa, OfPodsThatHaveNoFigureUpTakesZeroAndDownTheTarget) {
  // Two pods at 30 of a target of 10: 3 x, but (30 + 30 + 0 + 0) / 4 = 15: 1.5 x 4 = 6.
  EXPECT_EQ(MakeHpaQueue(10, {1, 100})->Decide(ViewOf(15, 2, 2, 30)), 6);
  // Two at 12 would be 1.2 x; (12 + 12 + 0 + 0) / 4 = 6 turns the direction: nothing changes.
  EXPECT_EQ(MakeHpaQueue(10, {1, 100})->Decide(ViewOf(15, 2, 2, 12)), 4);
  // Eight at 2: 0.2 x; (8 x 2 + 2 x 10) / 10 = 3.6: ceil(0.36 x 10) = 4, once it is stable.
  const auto policy = MakeHpaQueue(10, {1, 100});
  for (double now = 0; now < 300; now += 15) {
    ASSERT_EQ(policy->Decide(ViewOf(now, 8, 2, 2)), 10);
  }
  EXPECT_EQ(policy->Decide(ViewOf(300, 8, 2, 2)), 4);
}

TEST(Hpa, WithoutAnyFigureNothingChanges) {
  EXPECT_EQ(MakeHpaQueue(10, {1, 100})->Decide(ViewOf(15, 0, 3)), 3);
}

TEST(Hpa, TokensAreARateOverAMinute) {
  const auto policy = MakeHpaTokens(100, {1, 100});
  double tokens = 0;
  int64_t replicas = 1;
  for (double now = 15; now <= 120; now += 15) {
    tokens += now <= 60 ? 15 * 105 : 15 * 250;
    FleetView view = ViewOf(now, 1);
    view.pods[0].counters[control::PodCounters::kPrefilledTokens] = tokens - 100;
    view.pods[0].counters[control::PodCounters::kGeneratedTokens] = 100;
    replicas = policy->Decide(view);
    if (now <= 60) {
      ASSERT_EQ(replicas, 1) << now;  // 105 is within the tolerance
    }
    if (now == 75) {
      ASSERT_EQ(replicas, 2);  // (3 x 105 + 250) / 4 = 141
    }
  }
  EXPECT_EQ(replicas, 3);  // 250
}

TEST(Keda, TheThresholdIsAnAverageThatKnowsNoPods) {
  // 40 waiting at 5 for a replica: 8, of which 4 more are allowed at once.
  EXPECT_EQ(MakeKeda(5, {1, 100})->Decide(ViewOf(15, 4, 0, 10)), 8);
  // Pods that start do not dampen it: 20 waiting are 4 replicas, and 4 were asked for.
  EXPECT_EQ(MakeKeda(5, {1, 100})->Decide(ViewOf(15, 2, 2, 10)), 4);
  EXPECT_EQ(MakeKeda(5, {1, 100})->Decide(ViewOf(15, 2, 0, 16)), 6);  // ceil(32 / 5) = 7, 2 + 4
}

}  // namespace
}  // namespace quern::simulation
