#include "operator/simulation/fleet.h"

#include <gtest/gtest.h>

#include "tests/unit/operator/simulation/scenarios.h"

namespace quern::simulation {
namespace {

// One request a second that takes 10 steps of 1 s.
Scenario Steady(size_t requests) {
  Scenario scenario;
  scenario.profile.times.base = 1;
  scenario.profile.kv_tokens = 1'000'000;
  for (size_t i = 0; i < requests; ++i) {
    bench::TraceRequest request;
    request.at = static_cast<double>(i);
    request.output_tokens = 10;
    scenario.load.push_back(request);
  }
  return scenario;
}

TEST(Fleet, RequestsGoToTheReadyPodWithTheFewest) {
  const Scenario scenario = Steady(4);
  Fleet fleet(scenario.profile, scenario.load, 100, 2);
  fleet.Resize(0, 3);  // one that is not ready
  for (uint32_t i = 0; i < 4; ++i) {
    fleet.AdvanceTo(i);
    fleet.Arrive(i);
  }
  const FleetView view = fleet.View(3);
  ASSERT_EQ(view.pods.size(), 3U);
  EXPECT_EQ(view.pods[0].running + view.pods[0].waiting, 2);
  EXPECT_EQ(view.pods[1].running + view.pods[1].waiting, 2);
  EXPECT_FALSE(view.pods[2].ready);
  EXPECT_EQ(view.pods[2].running + view.pods[2].waiting, 0);
}

TEST(Fleet, ScaleDownTakesWhatStartsFirstAndThenDrains) {
  const Scenario scenario = Steady(1);
  Fleet fleet(scenario.profile, scenario.load, 100, 2);
  fleet.AdvanceTo(0);
  fleet.Arrive(0);  // to the first
  fleet.AdvanceTo(5);
  fleet.Resize(5, 4);
  fleet.AdvanceTo(6);
  fleet.Resize(6, 2);
  EXPECT_EQ(fleet.View(6).pods.size(), 2U);
  EXPECT_TRUE(fleet.View(6).pods[1].ready);
  fleet.Resize(7, 1);  // the one without requests
  ASSERT_EQ(fleet.View(7).pods.size(), 1U);
  EXPECT_EQ(fleet.View(7).pods[0].id, 0);
  fleet.AdvanceTo(20);
  EXPECT_TRUE(fleet.idle());
  EXPECT_NEAR(fleet.outcomes()[0].finish, 10, 1e-9);
  // 0 to 20, 0 to 7, and twice 5 to 6.
  EXPECT_NEAR(fleet.ReplicaSeconds(20), 20 + 7 + 2, 1e-9);
}

TEST(Fleet, APodThatDrainsFinishesWhatItHasAndIsPaidForUntilThen) {
  const Scenario scenario = Steady(2);
  Fleet fleet(scenario.profile, scenario.load, 100, 2);
  for (uint32_t i = 0; i < 2; ++i) {
    fleet.AdvanceTo(i);
    fleet.Arrive(i);
  }
  fleet.AdvanceTo(2);
  fleet.Resize(2, 1);
  fleet.AdvanceTo(30);
  EXPECT_TRUE(fleet.idle());
  EXPECT_NEAR(fleet.outcomes()[0].finish, 10, 1e-9);
  EXPECT_NEAR(fleet.outcomes()[1].finish, 11, 1e-9);
  EXPECT_NEAR(fleet.ReplicaSeconds(30), 30 + 11, 1e-9);
}

}  // namespace
}  // namespace quern::simulation
