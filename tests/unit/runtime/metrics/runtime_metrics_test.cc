#include "runtime/metrics/runtime_metrics.h"

#include <gtest/gtest.h>

#include <string>

namespace quern {
namespace {

bool Has(const std::string& text, const std::string& line) {
  return text.find("\n" + line + "\n") != std::string::npos;
}

TEST(RuntimeMetrics, GaugesShowTheSnapshot) {
  RuntimeMetrics metrics("m");
  MetricsSnapshot now;
  now.running = 3;
  now.waiting = 2;
  now.kv_tokens_used = 50;
  now.kv_tokens_capacity = 200;
  now.tokens_per_second = 12.5;
  const std::string text = metrics.Render(now);
  EXPECT_TRUE(Has(text, R"(quern_requests_running{model="m"} 3)")) << text;
  EXPECT_TRUE(Has(text, R"(quern_requests_waiting{model="m"} 2)"));
  EXPECT_TRUE(Has(text, R"(quern_kv_cache_usage_ratio{model="m"} 0.25)"));
  EXPECT_TRUE(Has(text, R"(quern_kv_cache_tokens_capacity{model="m"} 200)"));
  EXPECT_TRUE(Has(text, R"(quern_tokens_per_second{model="m"} 12.5)"));
  EXPECT_FALSE(Has(text, R"(quern_process_resident_memory_bytes{model="m"} 0)"));
}

TEST(RuntimeMetrics, UsageOfACacheThatIsNotThereYetIsZero) {
  RuntimeMetrics metrics("m");
  EXPECT_TRUE(Has(metrics.Render({}), R"(quern_kv_cache_usage_ratio{model="m"} 0)"));
}

TEST(RuntimeMetrics, TotalsFollowTheSnapshotAndNeverGoDown) {
  RuntimeMetrics metrics("m");
  MetricsSnapshot now;
  now.prompt_tokens_total = 7;
  now.generation_tokens_total = 5;
  now.preemptions_kv_full_total = 2;
  now.preemptions_fairness_total = 4;
  now.preempted_tokens_total = 300;
  now.prefix_queries_total = 90;
  now.prefix_hits_total = 64;
  metrics.Render(now);
  now.generation_tokens_total = 9;
  now.prompt_tokens_total = 3;
  const std::string text = metrics.Render(now);
  EXPECT_TRUE(Has(text, R"(quern_generation_tokens_total{model="m"} 9)"));
  EXPECT_TRUE(Has(text, R"(quern_prompt_tokens_total{model="m"} 7)"));
  EXPECT_TRUE(Has(text, R"(quern_preemptions_total{model="m",reason="kv_full"} 2)"));
  EXPECT_TRUE(Has(text, R"(quern_preemptions_total{model="m",reason="fairness"} 4)"));
  EXPECT_TRUE(Has(text, R"(quern_preempted_tokens_total{model="m"} 300)"));
  EXPECT_TRUE(Has(text, R"(quern_prefix_cache_queries_total{model="m"} 90)"));
  EXPECT_TRUE(Has(text, R"(quern_prefix_cache_hits_total{model="m"} 64)"));
}

TEST(RuntimeMetrics, EveryReasonExistsFromTheStart) {
  RuntimeMetrics metrics("m");
  const std::string text = metrics.Render({});
  for (const auto reason : RuntimeMetrics::kRejectReasons) {
    EXPECT_TRUE(Has(text, "quern_requests_rejected_total{model=\"m\",reason=\"" +
                              std::string(reason) + "\"} 0"))
        << reason;
  }
  for (const char* reason : {"stop", "length", "cancelled", "error"}) {
    EXPECT_TRUE(Has(text, std::string("quern_requests_finished_total{model=\"m\",reason=\"") +
                              reason + "\"} 0"));
  }
}

TEST(RuntimeMetrics, EventsAreCountedWhereTheyBelong) {
  RuntimeMetrics metrics("m");
  metrics.ObserveStep(0.02, 4, 36);
  metrics.ObserveFirstToken(0.5, 0.1);
  metrics.ObserveInterToken(0.03);
  metrics.CountFinished(FinishedAs::kCancelled, 2.0, 11, 3);
  metrics.CountAdmitted(11);
  metrics.CountRejected("queue_full");
  metrics.CountHttpRequest("completions", 200);
  metrics.SetModelInfo("llama", "Q4_1", "1.2.3");
  const std::string text = metrics.Render({});
  EXPECT_TRUE(Has(text, R"(quern_step_duration_seconds_count{model="m"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_step_batch_tokens_bucket{model="m",le="32"} 0)"));
  EXPECT_TRUE(Has(text, R"(quern_step_batch_tokens_bucket{model="m",le="64"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_step_batch_sequences_bucket{model="m",le="4"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_time_to_first_token_seconds_sum{model="m"} 0.5)"));
  EXPECT_TRUE(Has(text, R"(quern_request_queue_seconds_sum{model="m"} 0.1)"));
  EXPECT_TRUE(Has(text, R"(quern_inter_token_latency_seconds_count{model="m"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_request_duration_seconds_sum{model="m"} 2)"));
  EXPECT_TRUE(Has(text, R"(quern_requests_finished_total{model="m",reason="cancelled"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_admitted_prompt_tokens_total{model="m"} 11)"));
  EXPECT_TRUE(Has(text, R"(quern_requests_rejected_total{model="m",reason="queue_full"} 1)"));
  EXPECT_TRUE(
      Has(text, R"(quern_http_requests_total{model="m",handler="completions",status="200"} 1)"));
  EXPECT_TRUE(Has(
      text,
      R"(quern_model_info{model="m",architecture="llama",quantization="Q4_1",version="1.2.3"} 1)"));
}

TEST(RuntimeMetrics, FiguresAreShownUnderVllmsNamesOnlyWhereThatIsWanted) {
  EXPECT_EQ(RuntimeMetrics("m").Render({}).find("vllm:"), std::string::npos);
  RuntimeMetrics metrics("m", MetricsCompat::kVllm);
  metrics.ObserveStep(0.02, 4, 36);
  metrics.ObserveFirstToken(0.5, 0.1);
  metrics.ObserveInterToken(0.03);
  metrics.CountFinished(FinishedAs::kCancelled, 2.0, 11, 3);
  MetricsSnapshot now;
  now.running = 3;
  now.waiting = 2;
  now.kv_tokens_used = 50;
  now.kv_tokens_capacity = 200;
  now.prompt_tokens_total = 7;
  now.generation_tokens_total = 5;
  now.preemptions_kv_full_total = 1;
  now.preemptions_fairness_total = 2;
  now.prefix_queries_total = 90;
  now.prefix_hits_total = 64;
  metrics.Render(now);
  const std::string text = metrics.Render(now);
  const std::string labels = R"({engine="0",model_name="m"} )";
  for (const char* sample :
       {"num_requests_running=3", "num_requests_waiting=2", "kv_cache_usage_perc=0.25",
        "gpu_cache_usage_perc=0.25", "prompt_tokens_total=7", "generation_tokens_total=5",
        "num_preemptions_total=3", "prefix_cache_queries_total=90", "prefix_cache_hits_total=64",
        "iteration_tokens_total_sum=36", "time_to_first_token_seconds_sum=0.5",
        "request_queue_time_seconds_sum=0.1", "inter_token_latency_seconds_sum=0.03",
        "time_per_output_token_seconds_sum=0.03", "e2e_request_latency_seconds_sum=2",
        "request_prompt_tokens_sum=11", "request_generation_tokens_sum=3"}) {
    std::string line = std::string("vllm:") + sample;
    line.replace(line.find('='), 1, labels);
    EXPECT_TRUE(Has(text, line)) << line;
  }
  EXPECT_TRUE(Has(
      text, R"(vllm:request_success_total{engine="0",model_name="m",finished_reason="abort"} 1)"));
  EXPECT_TRUE(Has(
      text, R"(vllm:request_success_total{engine="0",model_name="m",finished_reason="stop"} 0)"));
  EXPECT_TRUE(Has(text, R"(quern_requests_running{model="m"} 3)"));
}

}  // namespace
}  // namespace quern
