#include "operator/reconcilers/status_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/operator/reconcilers/observed.h"

namespace quern::control {
namespace {

using ::testing::HasSubstr;

const Condition& Of(const EndpointStatus& status, const char* type) {
  static const Condition none;
  const Condition* condition = FindCondition(status.conditions, type);
  EXPECT_NE(condition, nullptr) << type;
  return condition == nullptr ? none : *condition;
}

StatusPlan Plan(const Observed& seen, int64_t desired, const std::vector<Problem>& failures = {}) {
  return PlanStatus(seen, desired, failures, TestOptions());
}

ScalingReport Report(int64_t replicas, const char* message = "1 -> 2: demand 70 tokens/s") {
  ScalingReport report;
  report.uid = "u";
  report.decision = ScalingDecision{"2026-01-01T00:00:00Z", 1, replicas, "ScaleUp", message, {}};
  report.active = {"ScalingActive", "True", "Scaling", message, 0, {}};
  report.performance.tokens_per_second = "12.0";
  return report;
}

TEST(PlanStatus, OfANewEndpointIsStarting) {
  const StatusPlan plan = Plan(NewlySeen(), 1);
  EXPECT_EQ(plan.status.observed_generation, 2);
  EXPECT_EQ(plan.status.url, "http://a.ns.svc.cluster.local");
  EXPECT_EQ(plan.status.desired_replicas, 1);
  EXPECT_EQ(Of(plan.status, "Ready").reason, "Starting");
  EXPECT_EQ(Of(plan.status, "Available").status, "False");
  EXPECT_EQ(Of(plan.status, "Progressing").status, "True");
  EXPECT_EQ(Of(plan.status, "Degraded").status, "False");
  EXPECT_TRUE(plan.events.empty());
}

TEST(PlanStatus, OfAServingEndpointIsSettled) {
  const StatusPlan plan = Plan(Made(NewlySeen(), 1, 1), 1);
  EXPECT_EQ(Of(plan.status, "Ready").status, "True");
  EXPECT_EQ(Of(plan.status, "Progressing").reason, "Settled");
  ASSERT_EQ(plan.events.size(), 1u);
  EXPECT_EQ(plan.events[0].reason, "Ready");
}

TEST(PlanStatus, IsTheSameWhenAskedAgain) {
  for (const bool scaled : {false, true}) {
    Observed seen = Made(NewlySeen(), 1, 0);
    if (scaled) seen.scaling = Report(1);
    const StatusPlan first = Plan(seen, 1, {{"ApplyRefused", "no"}});
    seen.endpoint.status = first.status;
    seen.now += std::chrono::seconds(10);
    const StatusPlan second = Plan(seen, 1, {{"ApplyRefused", "no"}});
    EXPECT_EQ(second.status, first.status);
    EXPECT_TRUE(second.events.empty());
  }
}

TEST(PlanStatus, StaysReadyWhileABetterSpecFailsToRollOut) {
  Observed seen = Made(NewlySeen(), 1, 1);
  seen.pods = {json::parse(
      R"({"metadata": {"name": "a-2"}, "status": {"containerStatuses": [{"name": "quern-serve",
      "ready": false, "state": {"terminated": {"exitCode": 2, "message": "bad magic"}}}]}})")};
  const StatusPlan plan = Plan(seen, 1);
  EXPECT_EQ(Of(plan.status, "Ready").status, "True");
  EXPECT_EQ(Of(plan.status, "Degraded").reason, "ModelNotLoaded");
  EXPECT_THAT(Of(plan.status, "Degraded").message, HasSubstr("bad magic"));
}

TEST(PlanStatus, NotReadySaysWhy) {
  Observed seen = Made(NewlySeen(), 1, 0);
  seen.endpoint.status = Plan(Made(NewlySeen(), 1, 1), 1).status;
  const StatusPlan plan = Plan(seen, 1, {{"ApplyRefused", "quota"}});
  EXPECT_EQ(Of(plan.status, "Ready").reason, "ApplyRefused");
  EXPECT_EQ(Of(plan.status, "Ready").message, "0 of 1 replicas ready: quota");
  ASSERT_EQ(plan.events.size(), 2u);
  EXPECT_EQ(plan.events[0].reason, "NotReady");
  EXPECT_EQ(plan.events[1].reason, "ApplyRefused");
  EXPECT_TRUE(plan.events[1].warning);
}

TEST(PlanStatus, AScaleChangeIsWrittenAtOnceWithItsHistoryAndEvent) {
  Observed seen = Made(NewlySeen(), 1, 1);
  seen.scaling = Report(1, "steady");
  seen.endpoint.status = Plan(seen, 1).status;
  seen.now += std::chrono::seconds(2);
  seen.scaling = Report(2);
  const StatusPlan plan = Plan(seen, 2);
  EXPECT_EQ(plan.status.last_decision->replicas, 2);
  ASSERT_EQ(plan.status.history.size(), 1u);
  EXPECT_EQ(plan.status.history[0].from, 1);
  EXPECT_EQ(plan.status.history[0].to, 2);
  ASSERT_EQ(plan.events.size(), 1u);
  EXPECT_EQ(plan.events[0].reason, "ScaledUp");
  EXPECT_THAT(plan.events[0].note, HasSubstr("tokens/s"));
}

TEST(PlanDecision, ChangesNoConditionThatDependsOnWhatTheServerRefuses) {
  Observed seen = Made(NewlySeen(), 1, 1);
  seen.scaling = Report(1, "steady");
  seen.endpoint.status = Plan(seen, 1, {{"ApplyRefused", "an admission policy"}}).status;
  ASSERT_EQ(Of(seen.endpoint.status, "Degraded").status, "True");
  seen.now += std::chrono::seconds(2);
  seen.scaling = Report(2);
  const StatusPlan plan = PlanDecision(seen, 2);
  EXPECT_EQ(plan.status.desired_replicas, 2);
  EXPECT_EQ(plan.status.last_decision->replicas, 2);
  EXPECT_EQ(Of(plan.status, "Degraded"), Of(seen.endpoint.status, "Degraded"));
  ASSERT_EQ(plan.events.size(), 1u);  // no "Recovered"
  EXPECT_EQ(plan.events[0].reason, "ScaledUp");
}

TEST(PlanStatus, HistoryIsShortAndNewestFirst) {
  Observed seen = Made(NewlySeen(), 1, 1);
  for (int i = 0; i < 30; ++i) {
    seen.now += std::chrono::seconds(1);
    seen.scaling = Report(1 + i % 2, std::to_string(i).c_str());
    seen.endpoint.status = Plan(seen, 1 + i % 2).status;
  }
  ASSERT_EQ(seen.endpoint.status.history.size(), EndpointStatus::kMaxHistory);
  EXPECT_EQ(seen.endpoint.status.history[0].message, "29");
}

TEST(PlanStatus, FiguresAreRefreshedAtMostEveryThirtySeconds) {
  Observed seen = Made(NewlySeen(), 1, 1);
  seen.scaling = Report(1);
  seen.endpoint.status = Plan(seen, 1).status;
  seen.scaling->performance.tokens_per_second = "99.0";
  seen.now += std::chrono::seconds(29);
  EXPECT_EQ(Plan(seen, 1).status.performance->tokens_per_second, "12.0");
  seen.now += std::chrono::seconds(1);
  EXPECT_EQ(Plan(seen, 1).status.performance->tokens_per_second, "99.0");
}

TEST(PlanStatus, AnAutoscalerThatSeesNothingSaysSoAtOnce) {
  Observed seen = Made(NewlySeen(), 1, 1);
  seen.scaling = Report(1);
  seen.endpoint.status = Plan(seen, 1).status;
  seen.now += std::chrono::seconds(1);
  seen.scaling->active = {"ScalingActive", "False", "MetricsMissing", "pod a-1: refused", 0, {}};
  const StatusPlan plan = Plan(seen, 1);
  EXPECT_EQ(Of(plan.status, "ScalingActive").reason, "MetricsMissing");
  EXPECT_EQ(Of(plan.status, "ScalingActive").observed_generation, 2);
}

TEST(PlanStatus, ASpecThatCannotBeReadIsReported) {
  Observed seen = NewlySeen();
  seen.spec_error = Problem{"InvalidSpec", "spec.model.uri: bad"};
  const StatusPlan plan = Plan(seen, 0);
  EXPECT_EQ(Of(plan.status, "Ready").reason, "InvalidSpec");
  EXPECT_EQ(Of(plan.status, "Degraded").message, "spec.model.uri: bad");
}

}  // namespace
}  // namespace quern::control
