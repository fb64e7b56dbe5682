#include "runtime/bench/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace quern::bench {
namespace {

std::vector<PlannedRequest> All(Plan& plan) {
  std::vector<PlannedRequest> all;
  while (const auto next = plan.Next()) all.push_back(*next);
  return all;
}

PlanOptions AtRate(Arrivals arrivals, double rate) {
  PlanOptions options;
  options.arrivals = arrivals;
  options.rate = rate;
  return options;
}

TEST(Plan, PoissonArrivalsHaveTheRateAndTheSpreadOfAPoissonProcess) {
  PlanOptions options = AtRate(Arrivals::kPoisson, 50);
  options.max_requests = 20'000;
  Plan plan(options, {});
  const auto requests = All(plan);
  ASSERT_EQ(requests.size(), 20'000U);
  double sum = 0, squares = 0, before = 0;
  for (const PlannedRequest& request : requests) {
    const double gap = request.at - before;
    ASSERT_GE(gap, 0);
    sum += gap;
    squares += gap * gap;
    before = request.at;
  }
  const double mean = sum / 20'000, deviation = std::sqrt(squares / 20'000 - mean * mean);
  EXPECT_NEAR(mean, 0.02, 0.0006);       // four standard errors
  EXPECT_NEAR(deviation, mean, 0.0008);  // of an exponential distribution
}

TEST(Plan, TheSameSeedGivesTheSamePlanAndAnotherGivesAnother) {
  PlanOptions options = AtRate(Arrivals::kPoisson, 5);
  options.max_requests = 50;
  options.prompt = {10, 500};
  Plan first(options, {}), second(options, {});
  options.seed = 2;
  Plan other(options, {});
  const auto a = All(first), b = All(second), c = All(other);
  int same = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].at, b[i].at);
    EXPECT_EQ(a[i].prompt_tokens, b[i].prompt_tokens);
    if (a[i].at == c[i].at || a[i].prompt_tokens == c[i].prompt_tokens) ++same;
  }
  EXPECT_LT(same, 10);
}

TEST(Plan, LengthsFillTheirRange) {
  PlanOptions options;
  options.max_requests = 500;
  options.prompt = {3, 6};
  options.output = {7, 7};
  Plan plan(options, {});
  EXPECT_EQ(plan.Total(), 500);
  std::vector<int> seen(7);
  for (const PlannedRequest& request : All(plan)) {
    ASSERT_GE(request.prompt_tokens, 3);
    ASSERT_LE(request.prompt_tokens, 6);
    EXPECT_EQ(request.output_tokens, 7);
    ++seen[static_cast<size_t>(request.prompt_tokens)];
  }
  for (size_t length = 3; length <= 6; ++length) EXPECT_GT(seen[length], 80);
}

TEST(Plan, ConstantArrivalsEndWithTheDuration) {
  PlanOptions options = AtRate(Arrivals::kConstant, 4);
  options.duration = 2;
  Plan plan(options, {});
  EXPECT_FALSE(plan.Total().has_value());
  const auto requests = All(plan);
  ASSERT_EQ(requests.size(), 8U);
  EXPECT_EQ(requests[3].at, 0.75);
}

TEST(Plan, ATracesTimesAreSpedUpAndItsLengthsCut) {
  PlanOptions options;
  options.arrivals = Arrivals::kTrace;
  options.speedup = 2;
  options.max_prompt_tokens = 100;
  options.max_output_tokens = 10;
  Plan plan(options, {{0, 50, 5, {}}, {3, 300, 5, {7}}, {5, 20, 11, {}}});
  EXPECT_EQ(plan.Total(), 3);
  const auto requests = All(plan);
  ASSERT_EQ(requests.size(), 3U);
  EXPECT_EQ(requests[1].at, 1.5);
  EXPECT_EQ(requests[1].prompt_tokens, 100);
  ASSERT_NE(requests[1].blocks, nullptr);
  EXPECT_EQ(requests[0].blocks, nullptr);
  EXPECT_EQ(requests[2].output_tokens, 10);
  EXPECT_EQ(plan.num_cut(), 2);
}

TEST(Plan, ATraceGivesLengthsToOtherArrivals) {
  PlanOptions options = AtRate(Arrivals::kConstant, 10);
  options.max_requests = 5;
  Plan plan(options, {{0, 50, 5, {}}, {30, 60, 6, {}}});
  EXPECT_EQ(plan.Total(), 2);  // the trace is gone through once
  const auto requests = All(plan);
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[1].at, 0.1);
  EXPECT_EQ(requests[1].prompt_tokens, 60);
}

TEST(LengthRange, IsANumberOrTwo) {
  EXPECT_EQ(ParseLengthRange("128")->Show(), "128");
  EXPECT_EQ(ParseLengthRange("64-256")->Show(), "64-256");
  for (const char* text : {"", "0", "-5", "5-", "9-3", "1-2-3", "x", "1-99999999", "4 "}) {
    EXPECT_FALSE(ParseLengthRange(text).ok()) << text;
  }
}

}  // namespace
}  // namespace quern::bench
