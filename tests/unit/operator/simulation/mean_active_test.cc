// KubeAI's mean of active requests: examples worked by hand.
#include <gtest/gtest.h>

#include "tests/unit/operator/simulation/views.h"

namespace quern::simulation {
namespace {

TEST(MeanActive, TheWindowOfTenMinutesBeginsWithZeros) {
  const auto policy = MakeMeanActive(10, {1, 100});
  FleetView view = ViewOf(10, 1, 0, 60);
  for (int tick = 1; tick <= 60; ++tick) {
    // 60 requests for so many of 60 ticks: a mean of as many, at 10 a replica.
    view.desired = policy->Decide(view);
    ASSERT_EQ(view.desired, (tick + 9) / 10) << tick;
  }
}

TEST(MeanActive, DownAtTheFourthDecisionThatWouldGoDown) {
  const auto policy = MakeMeanActive(1, {1, 100});
  FleetView view = ViewOf(10, 1, 0, 600);
  view.desired = policy->Decide(view);
  ASSERT_EQ(view.desired, 10);
  view.pods[0].waiting = 0;
  for (int tick = 0; tick < 59; ++tick) ASSERT_EQ(policy->Decide(view), 10);
  // The burst has left the window.
  for (int tick = 0; tick < 3; ++tick) ASSERT_EQ(policy->Decide(view), 10);
  EXPECT_EQ(policy->Decide(view), 1);
}

}  // namespace
}  // namespace quern::simulation
