#include "runtime/bench/figures.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace quern::bench {
namespace {

// Sent at `at`, first text after `ttft`, then `gaps`; ends with the last text.
RequestRecord Done(double at, double ttft, const std::vector<float>& gaps, int32_t tokens) {
  RequestRecord record;
  record.wanted_prompt = 10;
  record.wanted_output = tokens;
  record.scheduled = record.sent = at;
  record.first_text = record.last_text = at + ttft;
  for (const float gap : gaps) record.last_text += gap;
  record.gaps = gaps;
  record.text_events = static_cast<int32_t>(gaps.size()) + 1;
  record.usage = {10, tokens, 2};
  record.end = record.last_text;
  record.outcome = Outcome::kDone;
  return record;
}

RequestRecord Failed(double at, double end, const std::string& error) {
  RequestRecord record;
  record.scheduled = record.sent = at;
  record.end = end;
  record.outcome = Outcome::kFailed;
  record.error = error;
  return record;
}

Figures Of(const std::vector<RequestRecord>& records, const Objective& objective = {}) {
  std::vector<const RequestRecord*> pointers;
  for (const RequestRecord& record : records) pointers.push_back(&record);
  return FiguresOf(pointers, objective);
}

TEST(Distribution, PercentilesAreLinearBetweenRanks) {
  std::vector<float> samples;
  for (int i = 100; i >= 0; --i) samples.push_back(static_cast<float>(i));
  const Distribution d = DistributionOf(samples);
  EXPECT_EQ(d.count, 101U);
  EXPECT_DOUBLE_EQ(d.mean, 50);
  EXPECT_DOUBLE_EQ(d.p50, 50);
  EXPECT_DOUBLE_EQ(d.p99, 99);
  EXPECT_DOUBLE_EQ(d.max, 100);
  std::vector<float> two = {1, 2};
  EXPECT_NEAR(DistributionOf(two).p90, 1.9, 1e-6);
  std::vector<float> none;
  EXPECT_EQ(DistributionOf(none).count, 0U);
}

TEST(Figures, RatesAreOverTheTimeToTheLastEnd) {
  const Figures figures =
      Of({Done(0, 0.5, {0.25, 0.25}, 3), Done(1, 0.5, {0.5}, 2), Failed(0, 4, "status 500"),
          Failed(1, 2, "timeout"), Failed(1, 2, "timeout")});
  EXPECT_DOUBLE_EQ(figures.seconds, 4);
  EXPECT_EQ(figures.done, 2);
  EXPECT_EQ(figures.failed, 3);
  EXPECT_EQ(figures.errors.at("timeout"), 2);
  EXPECT_EQ(figures.prompt_tokens, 20);
  EXPECT_EQ(figures.cached_tokens, 4);
  EXPECT_EQ(figures.output_tokens, 5);
  EXPECT_DOUBLE_EQ(figures.output_tokens_per_second, 1.25);
  EXPECT_DOUBLE_EQ(figures.total_tokens_per_second, 6.25);
  EXPECT_DOUBLE_EQ(figures.requests_per_second, 0.5);
  EXPECT_DOUBLE_EQ(figures.mean_in_flight, (1 + 1 + 4 + 1 + 1) / 4.0);
  EXPECT_NEAR(figures.ttft.mean, 0.5, 1e-6);
  EXPECT_NEAR(figures.itl.mean, 1.0 / 3, 1e-6);
  EXPECT_NEAR(figures.e2e.max, 1, 1e-6);
}

TEST(Figures, LatenciesCountFromWhenTheRequestWasDue) {
  RequestRecord late = Done(5, 0.5, {0.5}, 2);
  late.scheduled = 2;
  const Figures figures = Of({late});
  EXPECT_NEAR(figures.ttft.p50, 3.5, 1e-6);
  EXPECT_NEAR(figures.e2e.p50, 4, 1e-6);
  EXPECT_NEAR(figures.lateness.max, 3, 1e-6);
}

TEST(Figures, AnEventWithSeveralTokensCountsAsThem) {
  // Nine tokens in five events: each gap is two tokens of half its time.
  const Figures figures = Of({Done(0, 1, {0.2F, 0.2F, 0.4F, 0.4F}, 9)});
  EXPECT_EQ(figures.itl.count, 8U);
  EXPECT_NEAR(figures.itl.mean, 1.2 / 8, 1e-6);
  EXPECT_NEAR(figures.itl.max, 0.2, 1e-6);
  EXPECT_NEAR(figures.tpot.mean, 1.2 / 8, 1e-6);
  EXPECT_DOUBLE_EQ(figures.tokens_per_event, 1.8);
  // A ratio that is no whole number: still one sample for each token after the first.
  EXPECT_EQ(Of({Done(0, 1, {0.2F, 0.2F, 0.4F, 0.4F}, 8)}).itl.count, 7U);
}

TEST(Figures, WithoutUsageTokensAreEvents) {
  RequestRecord record = Done(0, 1, {0.5F}, 2);
  record.usage = {};
  const Figures figures = Of({record});
  EXPECT_EQ(figures.usage_missing, 1);
  EXPECT_EQ(figures.output_tokens, 2);
  EXPECT_EQ(figures.prompt_tokens, 10);  // as asked for
}

TEST(Figures, AnswersThatEndedEarlyAreCounted) {
  RequestRecord record = Done(0, 1, {0.5F}, 2);
  record.wanted_output = 3;
  EXPECT_EQ(Of({record}).ended_early, 1);
}

TEST(Figures, AFailedRequestKeepsNoObjective) {
  Objective objective;
  objective.ttft = 0.6;
  objective.itl = 0.3;
  const Figures figures =
      Of({Done(0, 0.5, {0.25, 0.25}, 3), Done(0, 0.7, {0.25, 0.9F}, 3), Failed(0, 2, "timeout")},
         objective);
  EXPECT_EQ(figures.goodput.met, 1);
  EXPECT_EQ(figures.goodput.missed_ttft, 1);
  EXPECT_EQ(figures.goodput.missed_itl, 1);
  EXPECT_EQ(figures.goodput.missed_e2e, 0);
  EXPECT_NEAR(figures.goodput.share, 1.0 / 3, 1e-9);
  EXPECT_NEAR(figures.goodput.requests_per_second, 0.5, 1e-9);
}

TEST(Figures, AnAnswerWithoutTextMissesTheFirstToken) {
  RequestRecord record = Done(0, 1, {}, 1);
  record.first_text = record.last_text = -1;
  record.text_events = 0;
  Objective objective;
  objective.ttft = 5;
  const Figures figures = Of({record}, objective);
  EXPECT_EQ(figures.goodput.missed_ttft, 1);
  EXPECT_EQ(figures.ttft.count, 0U);
}

TEST(Figures, OfNothingAreZero) {
  const Figures figures = Of({});
  EXPECT_EQ(figures.seconds, 0);
  EXPECT_EQ(figures.requests_per_second, 0);
}

}  // namespace
}  // namespace quern::bench
