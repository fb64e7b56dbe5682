#include "operator/simulation/clairvoyant.h"

#include <gtest/gtest.h>

#include "tests/unit/operator/simulation/scenarios.h"

namespace quern::simulation {
namespace {

TEST(Clairvoyant, NoPolicyComesBelowTheBoundForWhatItAttains) {
  int tight = 0;
  for (uint32_t seed = 1; seed <= 12; ++seed) {
    const Scenario scenario = RandomScenario(seed, 150);
    for (const PolicyKind& kind : PolicyKinds()) {
      for (const double target : {1.0, 4.0, 100.0}) {
        SCOPED_TRACE(fmt::format("seed {} {} {}", seed, kind.name, target));
        const auto policy = MakePolicy(kind.name, target, scenario.limits);
        const RunResult result = Simulate(scenario, *policy);
        const double bound = ClairvoyantHours(scenario, result.attainment, 120);
        ASSERT_LE(bound, result.replica_hours * (1 + 1e-9));
        ASSERT_GE(bound, scenario.load.back().at / 3600 *
                             static_cast<double>(scenario.limits.min_replicas) * (1 - 1e-9));
        tight += bound > result.replica_hours / 3;
      }
    }
  }
  EXPECT_GT(tight, 50);  // or it says nothing
}

TEST(Clairvoyant, MoreAttainmentNeverCostsLess) {
  for (uint32_t seed = 1; seed <= 10; ++seed) {
    const Scenario scenario = RandomScenario(seed, 100);
    double before = 0;
    for (const double attainment : {0.0, 0.3, 0.6, 0.9, 1.0}) {
      const double hours = ClairvoyantHours(scenario, attainment, 120);
      EXPECT_GE(hours, before * (1 - 1e-9)) << seed << " " << attainment;
      before = hours;
    }
  }
}

// Silence, and once 100 requests of 1 s of work each at the same time, due within 5 s: 20 replicas
// at least, each of which is there 60 s before and then for 5.
TEST(Clairvoyant, ABurstCostsTheStartOfEveryReplicaThatItNeeds) {
  Scenario scenario;
  scenario.profile.times = {.base = 1e-6, .per_prefill_token = 0.01};
  scenario.profile.kv_tokens = 1'000'000;
  scenario.objective = {5, 1};
  scenario.limits = {1, 100};
  scenario.start_up = 60;
  for (int i = 0; i < 102; ++i) {
    bench::TraceRequest request;
    request.at = i == 0 ? 0 : i == 101 ? 3600 : 1800;
    request.prompt_tokens = i == 0 || i == 101 ? 1 : 100;
    scenario.load.push_back(request);
  }
  const double ideal = (3600 - 65 + 20 * 65) / 3600.0;
  const double hours = ClairvoyantHours(scenario, 1, 1200);
  EXPECT_LT(hours, ideal);
  EXPECT_GT(hours, ideal - 0.1);  // windows are on a grid
}

}  // namespace
}  // namespace quern::simulation
