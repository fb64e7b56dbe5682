#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/simulation/report.h"
#include "tests/unit/operator/simulation/scenarios.h"

namespace quern::simulation {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Plot, EveryRunHasAPanelWithFiniteCoordinates) {
  const Scenario scenario = RandomScenario(11, 80);
  CompareOptions options;
  options.bound_grid = 100;
  options.policies = {"quern", "knative", kClairvoyant};
  options.traces = true;
  const std::string svg = PlotSvg("a<b", scenario, Compare(scenario, options));
  EXPECT_THAT(svg, testing::StartsWith("<svg"));
  EXPECT_THAT(svg, testing::EndsWith("</svg>\n"));
  EXPECT_THAT(svg, HasSubstr("quern:"));
  EXPECT_THAT(svg, HasSubstr("knative:"));
  EXPECT_THAT(svg, HasSubstr("a&lt;b"));
  EXPECT_THAT(svg, Not(HasSubstr("clairvoyant:")));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

}  // namespace
}  // namespace quern::simulation
