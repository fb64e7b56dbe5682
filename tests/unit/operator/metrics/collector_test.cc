#include "operator/metrics/collector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace quern::control {
namespace {

// A page of quern-serve, cut down to what the operator reads.
std::string Page(double requests, double prompt, double generated, double waiting = 0) {
  return fmt::format(
      "quern_admitted_requests_total{{model=\"m\"}} {}\n"
      "quern_admitted_prompt_tokens_total{{model=\"m\"}} {}\n"
      "quern_prompt_tokens_total{{model=\"m\"}} {}\n"
      "quern_generation_tokens_total{{model=\"m\"}} {}\n"
      "quern_requests_finished_total{{model=\"m\",reason=\"stop\"}} {}\n"
      "quern_requests_finished_total{{model=\"m\",reason=\"length\"}} 1\n"
      "quern_requests_running{{model=\"m\"}} 2\n"
      "quern_requests_waiting{{model=\"m\"}} {}\n"
      "quern_kv_cache_usage_ratio{{model=\"m\"}} 0.25\n"
      "quern_time_to_first_token_seconds_bucket{{model=\"m\",le=\"0.5\"}} {}\n"
      "quern_time_to_first_token_seconds_bucket{{model=\"m\",le=\"+Inf\"}} {}\n"
      "process_cpu_seconds_total 5\n",
      requests, prompt, prompt, generated, requests, waiting, requests, requests);
}

PodReading Reading(const std::string& page) {
  auto reading = ReadPodMetrics(page);
  EXPECT_TRUE(reading) << reading.error().message;
  return *reading;
}

ScalingPolicy Policy() {
  ScalingPolicy policy;
  policy.stable_window = 60'000;
  policy.panic_window = 10'000;
  return policy;
}

TEST(ReadPodMetrics, AddsUpReasonsAndPicksItsSeries) {
  const PodReading r = Reading(Page(10, 200, 300, 4));
  EXPECT_EQ(r.sample.counters[PodCounters::kFinishedRequests], 11);
  EXPECT_EQ(r.sample.counters[PodCounters::kGeneratedTokens], 300);
  EXPECT_EQ(r.sample.waiting_requests, 4);
  EXPECT_EQ(r.sample.kv_cache_usage, 0.25);
  EXPECT_EQ(r.time_to_first_token.size(), 2u);
}

TEST(ReadPodMetrics, CountsRefusalsOnlyWhereCapacityWasMissing) {
  const PodReading r =
      Reading(Page(10, 200, 300) +
              "quern_requests_rejected_total{model=\"m\",reason=\"queue_full\"} 3\n"
              "quern_requests_rejected_total{model=\"m\",reason=\"admission_full\"} 2\n"
              "quern_requests_rejected_total{model=\"m\",reason=\"tenant_limit\"} 40\n"
              "quern_requests_rejected_total{model=\"m\",reason=\"idle_timeout\"} 90\n"
              "quern_requests_rejected_total{model=\"m\",reason=\"body_bytes\"} 7\n");
  EXPECT_EQ(r.sample.counters[PodCounters::kRejectedRequests], 5);
}

TEST(ReadPodMetrics, NamesTheSeriesThatIsMissing) {
  const auto reading = ReadPodMetrics("go_goroutines 3\n");
  ASSERT_FALSE(reading);
  EXPECT_THAT(reading.error().message, testing::HasSubstr("quern_admitted_requests_total"));
}

TEST(ReadPodMetrics, IgnoresFiguresThatAreNone) {
  const PodReading r = Reading(Page(10, 200, NAN, INFINITY));
  EXPECT_EQ(r.sample.counters[PodCounters::kGeneratedTokens], 0);
  EXPECT_EQ(r.sample.waiting_requests, 0);
}

TEST(ReadPodMetrics, FiguresAndTheirSumsStayWhereArithmeticWorks) {
  const PodReading r = Reading(Page(1e300, 200, 1.7e308) +
                               "quern_generation_tokens_total{model=\"n\"} 1.7e308\n"
                               "quern_requests_running{model=\"n\"} 1e300\n"
                               "quern_time_to_first_token_seconds_bucket{le=\"-1e308\"} 1\n"
                               "quern_time_to_first_token_seconds_bucket{le=\"1e308\"} 1\n");
  EXPECT_EQ(r.sample.counters[PodCounters::kGeneratedTokens], kMaxFigure);
  EXPECT_EQ(r.sample.running_requests, kMaxFigure);
  EXPECT_EQ(r.time_to_first_token.at(0.5), kMaxFigure);
  EXPECT_EQ(r.time_to_first_token.size(), 2u);  // bounds that are no times are none
}

TEST(ReadPodMetrics, APageOfOtherSeriesIsReadWithoutBeingKept) {
  std::string labels;
  for (int i = 0; i < 16; ++i) labels += "a=\"\",";
  std::string page = Page(10, 200, 300);
  for (int i = 0; i < 4000; ++i) page += "a{" + labels + "} 1\n";
  EXPECT_EQ(Reading(page).sample.counters[PodCounters::kGeneratedTokens], 300);
  for (int i = 0; i < 1000; ++i) page += "a{" + labels + "} 1\n";
  const auto refused = ReadPodMetrics(page);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
}

TEST(EndpointCollector, NoPodsFiguresMakeASumThatIsNone) {
  EndpointCollector collector(Policy());
  std::vector<ScrapedPod> pods;
  for (int i = 0; i < 100; ++i) pods.push_back({"uid-" + std::to_string(i), 0, true});
  for (Millis t = 0; t <= 20'000; t += 2000) {
    const double figure = t % 4000 == 0 ? 1.7e308 : 0;  // each time another reset
    for (const ScrapedPod& pod : pods)
      collector.Add(pod, Reading(Page(figure, figure, figure, figure)), t);
  }
  const auto seen = collector.Observe(pods, 1, 0, 20'000, 6000);
  EXPECT_EQ(seen.recent[PodCounters::kGeneratedTokens], kMaxFigure);
  EXPECT_TRUE(std::isfinite(seen.stable.increase[PodCounters::kGeneratedTokens]));
  EXPECT_EQ(seen.waiting_requests, kMaxFigure);
  EXPECT_EQ(collector.Performance(pods, 20'000, 6000).running_requests, 200);
}

TEST(EndpointCollector, GivesRatesOverBothWindows) {
  EndpointCollector collector(Policy());
  const ScrapedPod pod{"uid-a", 0, true};
  for (Millis t = 0; t <= 80'000; t += 2000) {
    const double s = static_cast<double>(t) / 1000;
    collector.Add(pod, Reading(Page(s, 20 * s, 30 * s)), t);
  }
  const auto seen = collector.Observe({pod}, 1, 12, 80'000, 6000);
  EXPECT_DOUBLE_EQ(seen.stable.covered_seconds, 60);
  EXPECT_DOUBLE_EQ(seen.stable.increase[PodCounters::kAdmittedPromptTokens], 1200);
  EXPECT_DOUBLE_EQ(seen.panic.increase[PodCounters::kAdmittedRequests], 10);
  EXPECT_DOUBLE_EQ(seen.recent[PodCounters::kGeneratedTokens], 2400);
  EXPECT_EQ(seen.expected_pods, 1);
  EXPECT_EQ(seen.fresh_pods, 1);
  EXPECT_EQ(seen.running_requests, 2);
  EXPECT_EQ(seen.ready_seconds, 12);
  EXPECT_EQ(collector.Observe({pod}, 1, 12, 80'000, 6000).recent[PodCounters::kGeneratedTokens], 0);
  const auto figures = collector.Performance({pod}, 80'000, 6000);
  EXPECT_NEAR(*figures.tokens_per_second, 50, 1e-9);
  EXPECT_NEAR(*figures.ttft_p95, 0.475, 1e-9);
  EXPECT_FALSE(figures.itl_p50);
}

TEST(EndpointCollector, SaysWhichPodsAreStale) {
  EndpointCollector collector(Policy());
  collector.Add({"a", 0, true}, Reading(Page(1, 1, 1)), 0);
  collector.Add({"b", 0, true}, Reading(Page(1, 1, 1)), 8000);
  const auto seen =
      collector.Observe({{"a", 0, true}, {"b", 0, true}, {"c", 0, false}}, 3, 0, 10'000, 6000);
  EXPECT_EQ(seen.expected_pods, 2);
  EXPECT_EQ(seen.fresh_pods, 1);
  EXPECT_EQ(seen.running_requests, 2);
}

TEST(EndpointCollector, WithoutSamplesThereIsNothingToSay) {
  EndpointCollector collector(Policy());
  const auto figures = collector.Performance({{"a", 0, true}}, 1000, 6000);
  EXPECT_FALSE(figures.tokens_per_second);
  EXPECT_FALSE(figures.kv_cache_usage);
}

}  // namespace
}  // namespace quern::control
