// What the policy quern sees and decides is what the operator would.
#include <gtest/gtest.h>

#include "tests/unit/operator/simulation/views.h"

namespace quern::simulation {
namespace {

using Counter = control::PodCounters::Field;

TEST(QuernPolicy, DemandOverTheUtilisationTargetGivesReplicas) {
  const auto policy = MakeQuern(100, {1, 10});
  int64_t replicas = 1;
  for (double now = 2; now <= 62; now += 2) {
    FleetView view = ViewOf(now, 1);
    view.desired = replicas;
    view.pods[0].counters[Counter::kAdmittedPromptTokens] = now * 150;
    replicas = policy->Decide(view);
  }
  EXPECT_EQ(replicas, 2);  // 150 / (0.8 x 100)
}

TEST(QuernPolicy, ItHoldsForFiveMinutesBeforeItGoesDown) {
  const auto policy = MakeQuern(100, {1, 10});
  int64_t replicas = 4;
  double left = 0;
  for (double now = 0; now <= 400 && left == 0; now += 2) {
    FleetView view = ViewOf(now, 4);
    replicas = policy->Decide(view);
    if (replicas < 4) left = now;
  }
  EXPECT_EQ(replicas, 1);
  EXPECT_GT(left, 300);
  EXPECT_LE(left, 304);
}

TEST(QuernPolicy, ItsSpecMayBeAnother) {
  control::ScalingPolicy spec;
  spec.scale_down_delay = 30'000;
  const auto policy = MakeQuern(100, {1, 10}, spec);
  double left = 0;
  for (double now = 0; now <= 400 && left == 0; now += 2) {
    if (policy->Decide(ViewOf(now, 4)) < 4) left = now;
  }
  EXPECT_GT(left, 30);
  EXPECT_LE(left, 34);
}

}  // namespace
}  // namespace quern::simulation
