#include "operator/autoscaling/decide.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/operator/autoscaling/tick.h"

namespace quern::control {
namespace {

using ::testing::HasSubstr;

ScalingPolicy Policy() {
  ScalingPolicy policy;
  policy.max_replicas = 10;
  policy.target_tokens_per_second = 50;
  policy.target_utilization = 0.8;  // 40 tokens/s per replica
  policy.scale_down_delay = 60'000;
  return policy;
}

// All windows covered, with a demand of prompt tokens alone.
ScalingObservation Seeing(double prompt_tokens_per_second, int64_t replicas) {
  ScalingObservation seen;
  seen.current_replicas = seen.expected_pods = seen.fresh_pods = replicas;
  seen.stable.covered_seconds = 60;
  seen.stable.increase[Field::kAdmittedPromptTokens] = prompt_tokens_per_second * 60;
  seen.panic.covered_seconds = 10;
  seen.panic.increase[Field::kAdmittedPromptTokens] = prompt_tokens_per_second * 10;
  return seen;
}

TEST(Decide, ScalesUpToWhatTheStableWindowNeeds) {
  const auto d = Decide(Policy(), Seeing(70, 1), {}, 0);
  EXPECT_EQ(d.replicas, 2);
  EXPECT_EQ(d.explanation.rule, ScalingRule::kScaleUp);
  EXPECT_THAT(d.explanation.text, HasSubstr("1 -> 2: demand 70.0 tokens/s"));
  EXPECT_THAT(d.explanation.text, HasSubstr("needs 2 at 40.0 tokens/s per replica"));
}

TEST(Decide, OutputTokensAreExpectedFromArrivals) {
  ScalingObservation seen = Seeing(0, 1);
  seen.stable.increase[Field::kAdmittedRequests] = 60;  // one a second
  const auto d = Decide(Policy(), seen, StateWithMeanOutput(100), 0);
  EXPECT_NEAR(d.explanation.demand_tokens_per_second, 100, 1e-9);
  EXPECT_EQ(d.replicas, 3);
}

TEST(Decide, RejectedRequestsAreDemand) {
  ScalingObservation seen = Seeing(0, 1);
  seen.stable.increase[Field::kRejectedRequests] = 60;
  const auto d = Decide(Policy(), seen, {}, 0);
  EXPECT_GT(d.replicas, 1);
}

TEST(Decide, ABacklogIsDemandOverTheTimeANewReplicaTakes) {
  ScalingObservation seen = Seeing(0, 1);
  seen.waiting_requests = 10;  // of 64 + 64 tokens
  seen.ready_seconds = 16;
  EXPECT_DOUBLE_EQ(Decide(Policy(), seen, {}, 0).explanation.demand_tokens_per_second,
                   10 * 128 / 16.0);
  seen.ready_seconds = 1;  // not below the shortest horizon
  EXPECT_DOUBLE_EQ(Decide(Policy(), seen, {}, 0).explanation.demand_tokens_per_second,
                   10 * 128 / 10.0);
}

TEST(Decide, AFigureThatIsNoneHoldsAndIsForgotten) {
  for (const double bad : {NAN, INFINITY, -INFINITY}) {
    ScalingObservation seen = Seeing(500, 3);
    seen.stable.increase[Field::kAdmittedPromptTokens] = bad;
    seen.panic.increase[Field::kAdmittedPromptTokens] = bad;
    for (double& value : seen.recent.values) value = bad;
    const auto held = Decide(Policy(), seen, {}, 0);
    EXPECT_EQ(held.replicas, 3);
    EXPECT_EQ(held.explanation.rule, ScalingRule::kHoldMissingMetrics);
    const auto up = Decide(Policy(), Seeing(300, 3), held.state, kTick);  // the bad pod has gone
    EXPECT_EQ(up.replicas, 8);
  }
}

TEST(Decide, ABurstInThePanicWindowDecidesAtOnceAndThenHolds) {
  ScalingObservation seen = Seeing(5, 1);
  seen.panic.increase[Field::kAdmittedPromptTokens] = 1500;  // 150 tokens/s
  const auto up = Decide(Policy(), seen, {}, 0);
  EXPECT_EQ(up.replicas, 4);
  EXPECT_EQ(up.explanation.rule, ScalingRule::kPanic);
  const auto held = Decide(Policy(), Seeing(5, 4), up.state, 30'000);
  EXPECT_EQ(held.replicas, 4);
  EXPECT_EQ(held.explanation.rule, ScalingRule::kPanicHold);
}

TEST(Decide, LessThanTwiceTheSupplyIsNoPanic) {
  ScalingObservation seen = Seeing(5, 1);
  seen.panic.increase[Field::kAdmittedPromptTokens] = 790;
  EXPECT_EQ(Decide(Policy(), seen, {}, 0).replicas, 1);
}

TEST(Decide, ScalesDownOnlyAfterTheWholeDelay) {
  ScalingState state;
  int64_t replicas = 5;
  Millis down_at = -1;
  for (Millis now = 0; now <= 120'000 && down_at < 0; now += kTick) {
    const auto d = Decide(Policy(), Seeing(70, replicas), state, now);
    state = d.state;
    if (d.replicas < replicas) down_at = now;
    replicas = d.replicas;
  }
  EXPECT_EQ(replicas, 2);
  EXPECT_GT(down_at, 60'000);
  EXPECT_LE(down_at, 60'000 + kTick);
}

TEST(Decide, MissingMetricsHoldAndSayWhose) {
  ScalingObservation seen = Seeing(0, 4);
  seen.fresh_pods = 3;
  ScalingState state;
  for (Millis now = 0; now < 600'000; now += kTick) {
    const auto d = Decide(Policy(), seen, state, now);
    state = d.state;
    ASSERT_EQ(d.replicas, 4);
    ASSERT_EQ(d.explanation.rule, ScalingRule::kHoldMissingMetrics);
    ASSERT_THAT(d.explanation.text, HasSubstr("metrics of 3 of 4 ready pods are fresh"));
  }
  // Seen again: the delay starts anew.
  EXPECT_EQ(Decide(Policy(), Seeing(0, 4), state, 600'000).replicas, 4);
}

TEST(Decide, WhatIsSeenMayStillScaleUpWhileSomeMetricsAreMissing) {
  ScalingObservation seen = Seeing(200, 4);
  seen.fresh_pods = 3;
  EXPECT_EQ(Decide(Policy(), seen, {}, 0).replicas, 5);
}

TEST(Decide, ALoweredMaximumAndARaisedMinimumHoldEvenWithoutMetrics) {
  ScalingObservation seen = Seeing(0, 9);
  seen.fresh_pods = 0;
  ScalingPolicy policy = Policy();
  policy.max_replicas = 3;
  EXPECT_EQ(Decide(policy, seen, {}, 0).replicas, 3);
  EXPECT_EQ(Decide(policy, seen, {}, 0).explanation.rule, ScalingRule::kLimits);
  seen.current_replicas = 1;
  policy.min_replicas = 2;
  EXPECT_EQ(Decide(policy, seen, {}, 0).replicas, 2);
}

TEST(Decide, SaysWhenTheMaximumIsTheLimit) {
  const auto d = Decide(Policy(), Seeing(1000, 2), {}, 0);
  EXPECT_EQ(d.replicas, 10);
  EXPECT_TRUE(d.explanation.limited);
  EXPECT_THAT(d.explanation.text, HasSubstr("maxReplicas 10 is the limit"));
}

TEST(Decide, WaitsForTheFirstPodToBeReady) {
  ScalingObservation seen = Seeing(0, 2);
  seen.expected_pods = seen.fresh_pods = 0;
  const auto d = Decide(Policy(), seen, {}, 0);
  EXPECT_EQ(d.replicas, 2);
  EXPECT_EQ(d.explanation.rule, ScalingRule::kHoldNotReady);
}

TEST(Decide, LearnsHowLongAnswersAre) {
  ScalingState state;
  ScalingObservation seen = Seeing(10, 1);
  seen.recent[Field::kFinishedRequests] = 4;
  seen.recent[Field::kGeneratedTokens] = 4 * 200;
  for (Millis now = 0; now < 600'000; now += kTick)
    state = Decide(Policy(), seen, state, now).state;
  EXPECT_NEAR(MeanOutputTokens(state), 200, 1);
  EXPECT_NEAR(MeanOutputTokens(StateWithMeanOutput(200)), 200, 1e-9);
  EXPECT_EQ(MeanOutputTokens({}), 64);
}

}  // namespace
}  // namespace quern::control
