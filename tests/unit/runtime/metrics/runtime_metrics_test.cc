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
  EXPECT_FALSE(Has(text, R"(quern_process_cpu_seconds_total{model="m"} 0)"));
  EXPECT_NE(text.find(R"(quern_process_cpu_seconds_total{model="m"})"), std::string::npos);
}

TEST(RuntimeMetrics, UsageOfACacheThatIsNotThereYetIsZero) {
  RuntimeMetrics metrics("m");
  EXPECT_TRUE(Has(metrics.Render({}), R"(quern_kv_cache_usage_ratio{model="m"} 0)"));
}

TEST(RuntimeMetrics, TotalsFollowTheSnapshotAndNeverGoDown) {
  RuntimeMetrics metrics("m");
  MetricsSnapshot now;
  now.prompt_tokens_total = 7;
  now.prompt_tokens_computed_total = 4;
  now.prompt_tokens_cached_total = 3;
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
  EXPECT_TRUE(Has(text, R"(quern_prompt_tokens_by_source_total{model="m",source="computed"} 4)"));
  EXPECT_TRUE(
      Has(text, R"(quern_prompt_tokens_by_source_total{model="m",source="prefix_cache"} 3)"));
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
  for (const char* reason : {"stop", "length", "cancelled", "format", "error"}) {
    EXPECT_TRUE(Has(text, std::string("quern_requests_finished_total{model=\"m\",reason=\"") +
                              reason + "\"} 0"));
  }
}

TEST(RuntimeMetrics, EventsAreCountedWhereTheyBelong) {
  RuntimeMetrics metrics("m");
  metrics.ObserveStep(0.02, 4, 36);
  metrics.ObserveFirstToken(0.5, 0.1);
  metrics.ObserveInterToken(0.03);
  metrics.CountFinished({.how = FinishedAs::kCancelled,
                         .since_submit = 2.0,
                         .prompt_tokens = 11,
                         .computed_tokens = 9,
                         .generation_tokens = 3,
                         .max_tokens = 40,
                         .prefill = 0.5,
                         .decode = 0.25,
                         .corrupted = true});
  metrics.CountPromptFinished(4, 30);
  metrics.CountAdmitted(11);
  metrics.CountRejected("queue_full");
  metrics.CountHttpRequest("completions", 200);
  metrics.SetModelInfo("llama", "Q4_1", "1.2.3");
  metrics.ObserveBlockEvicted(90, 30);
  metrics.ObserveBlockReused(7);
  metrics.SetComputeInfo("a CPU", "avx2, 2 threads");
  EXPECT_EQ(metrics.Render({}).find("quern_gpu_info"), std::string::npos) << "there is none";
  metrics.SetGpuInfo("a GPU", "GPU-00000000-0000-0000-0000-000000000000");
  metrics.SetKvCacheInfo({.dtype = "int8", .block_tokens = 16, .blocks = 77});
  const std::string text = metrics.Render({});
  EXPECT_TRUE(Has(text, R"(quern_step_duration_seconds_count{model="m"} 1)"));
  EXPECT_TRUE(Has(
      text,
      R"(quern_gpu_info{model="m",UUID="GPU-00000000-0000-0000-0000-000000000000",modelName="a GPU"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_step_batch_tokens_bucket{model="m",le="32"} 0)"));
  EXPECT_TRUE(Has(text, R"(quern_step_batch_tokens_bucket{model="m",le="64"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_step_batch_sequences_bucket{model="m",le="4"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_time_to_first_token_seconds_sum{model="m"} 0.5)"));
  EXPECT_TRUE(Has(text, R"(quern_request_queue_seconds_sum{model="m"} 0.1)"));
  EXPECT_TRUE(Has(text, R"(quern_inter_token_latency_seconds_count{model="m"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_request_duration_seconds_sum{model="m"} 2)"));
  EXPECT_TRUE(Has(text, R"(quern_requests_finished_total{model="m",reason="cancelled"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_requests_corrupted_total{model="m"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_request_prefill_seconds_sum{model="m"} 0.5)"));
  EXPECT_TRUE(Has(text, R"(quern_request_decode_seconds_sum{model="m"} 0.25)"));
  EXPECT_TRUE(Has(text, R"(quern_request_inference_seconds_sum{model="m"} 0.75)"));
  EXPECT_TRUE(Has(text, R"(quern_request_time_per_output_token_seconds_sum{model="m"} 0.125)"));
  EXPECT_TRUE(Has(text, R"(quern_request_prompt_tokens_sum{model="m"} 11)"));
  EXPECT_TRUE(Has(text, R"(quern_request_generation_tokens_sum{model="m"} 3)"));
  EXPECT_TRUE(Has(text, R"(quern_request_prefill_computed_tokens_sum{model="m"} 9)"));
  EXPECT_TRUE(Has(text, R"(quern_request_params_max_tokens_sum{model="m"} 40)"));
  EXPECT_TRUE(Has(text, R"(quern_request_params_n_sum{model="m"} 4)"));
  EXPECT_TRUE(Has(text, R"(quern_request_max_generation_tokens_sum{model="m"} 30)"));
  EXPECT_TRUE(Has(
      text,
      R"(quern_kv_cache_info{model="m",block_tokens="16",blocks="77",dtype="int8",prefix_cache="on"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_kv_block_lifetime_seconds_sum{model="m"} 90)"));
  EXPECT_TRUE(Has(text, R"(quern_kv_block_idle_before_evict_seconds_sum{model="m"} 30)"));
  EXPECT_TRUE(Has(text, R"(quern_kv_block_reuse_gap_seconds_sum{model="m"} 7)"));
  EXPECT_TRUE(
      Has(text, R"(quern_compute_info{model="m",compute="avx2, 2 threads",cpu="a CPU"} 1)"));
  EXPECT_TRUE(Has(text, R"(quern_admitted_prompt_tokens_total{model="m"} 11)"));
  EXPECT_TRUE(Has(text, R"(quern_requests_rejected_total{model="m",reason="queue_full"} 1)"));
  EXPECT_TRUE(
      Has(text, R"(quern_http_requests_total{model="m",handler="completions",status="200"} 1)"));
  EXPECT_TRUE(Has(
      text,
      R"(quern_model_info{model="m",architecture="llama",quantization="Q4_1",version="1.2.3"} 1)"));
}

TEST(RuntimeMetrics, WhatARequestDidNotDoIsNotObserved) {
  RuntimeMetrics metrics("m", MetricsCompat::kVllm);
  const auto count_is = [&](const std::string& name, int count) {
    const std::string text = metrics.Render({});
    const std::string sample = "_count{model=\"m\"} " + std::to_string(count);
    EXPECT_TRUE(Has(text, "quern_request_" + name + sample)) << name;
    std::string theirs = name;
    if (name == "max_generation_tokens") theirs = "max_num_generation_tokens";
    if (name == "prefill_computed_tokens") theirs = "prefill_kv_computed_tokens";
    for (const char* phase : {"prefill", "decode", "inference"}) {
      if (name == std::string(phase) + "_seconds") theirs = std::string(phase) + "_time_seconds";
    }
    EXPECT_TRUE(Has(text, "vllm:request_" + theirs + R"(_count{engine="0",model_name="m"} )" +
                              std::to_string(count)))
        << theirs;
  };
  const auto counts_are = [&](int ran, int may_generate, int generated, int several) {
    count_is("prefill_computed_tokens", ran);
    count_is("params_max_tokens", may_generate);
    count_is("prefill_seconds", generated);
    count_is("decode_seconds", generated);
    count_is("inference_seconds", generated);
    count_is("time_per_output_token_seconds", several);
  };
  metrics.CountFinished({.how = FinishedAs::kCancelled, .prompt_tokens = 5, .max_tokens = 3});
  counts_are(0, 1, 0, 0);
  metrics.CountFinished({.prompt_tokens = 5, .computed_tokens = 5});
  counts_are(1, 1, 0, 0);
  metrics.CountFinished({.computed_tokens = 5, .generation_tokens = 1, .max_tokens = 1});
  counts_are(2, 2, 1, 0);
  metrics.CountFinished({.computed_tokens = 5, .generation_tokens = 2, .max_tokens = 3});
  counts_are(3, 3, 2, 1);
  metrics.CountPromptFinished(2, 0);
  count_is("params_n", 1);
  count_is("max_generation_tokens", 0);
  metrics.CountPromptFinished(2, 1);
  count_is("max_generation_tokens", 1);
}

TEST(RuntimeMetrics, OnlyAFullQueueIsARefusalInVllmsSense) {
  RuntimeMetrics metrics("m", MetricsCompat::kVllm);
  for (const auto reason : RuntimeMetrics::kRejectReasons) metrics.CountRejected(reason);
  metrics.CountRejected("queue_full");
  const std::string text = metrics.Render({});
  const std::string name = "vllm:admission_rejections_total{model_name=\"m\",reason=\"";
  EXPECT_TRUE(Has(text, name + "queue_full\"} 2")) << text;
  EXPECT_TRUE(Has(text, name + "admission_full\"} 1"));
  EXPECT_EQ(text.find(name + "context_length"), std::string::npos);
}

TEST(RuntimeMetrics, VllmsStateOfTheEngineIsOneOfThree) {
  RuntimeMetrics metrics("m", MetricsCompat::kVllm);
  for (const bool sleeping : {false, true, false}) {
    const std::string text = metrics.Render({.sleeping = sleeping});
    const auto state_is = [&](const char* state, bool value) {
      return Has(text, std::string(R"(vllm:engine_sleep_state{engine="0",model_name="m",)") +
                           "sleep_state=\"" + state + "\"} " + (value ? "1" : "0"));
    };
    EXPECT_TRUE(state_is("awake", !sleeping)) << text;
    EXPECT_TRUE(state_is("discard_all", sleeping));
    EXPECT_TRUE(state_is("weights_offloaded", false));
  }
}

TEST(RuntimeMetrics, FiguresAreShownUnderVllmsNamesOnlyWhereThatIsWanted) {
  EXPECT_EQ(RuntimeMetrics("m").Render({}).find("vllm:"), std::string::npos);
  RuntimeMetrics metrics("m", MetricsCompat::kVllm);
  metrics.ObserveStep(0.02, 4, 36);
  metrics.ObserveFirstToken(0.5, 0.1);
  metrics.ObserveInterToken(0.03);
  metrics.CountFinished({.how = FinishedAs::kCancelled,
                         .since_submit = 2.0,
                         .prompt_tokens = 11,
                         .computed_tokens = 9,
                         .generation_tokens = 3,
                         .max_tokens = 40,
                         .prefill = 0.5,
                         .decode = 0.25,
                         .corrupted = true});
  metrics.CountPromptFinished(4, 30);
  MetricsSnapshot now;
  now.running = 3;
  now.waiting = 2;
  now.kv_tokens_used = 50;
  now.kv_tokens_capacity = 200;
  now.prompt_tokens_total = 7;
  now.prompt_tokens_computed_total = 4;
  now.prompt_tokens_cached_total = 3;
  now.generation_tokens_total = 5;
  now.preemptions_kv_full_total = 1;
  now.preemptions_fairness_total = 2;
  now.prefix_queries_total = 90;
  now.prefix_hits_total = 64;
  metrics.ObserveBlockEvicted(90, 30);
  metrics.ObserveBlockReused(7);
  metrics.SetKvCacheInfo({.dtype = "f16", .block_tokens = 16, .blocks = 9, .prefix_cache = false});
  metrics.Render(now);
  const std::string text = metrics.Render(now);
  const std::string labels = R"({engine="0",model_name="m"} )";
  for (const char* sample : {"num_requests_running=3",
                             "num_requests_waiting=2",
                             "kv_cache_usage_perc=0.25",
                             "gpu_cache_usage_perc=0.25",
                             "prompt_tokens_total=7",
                             "generation_tokens_total=5",
                             "num_preemptions_total=3",
                             "prefix_cache_queries_total=90",
                             "prefix_cache_hits_total=64",
                             "gpu_prefix_cache_queries_total=90",
                             "gpu_prefix_cache_hits_total=64",
                             "iteration_tokens_total_sum=36",
                             "time_to_first_token_seconds_sum=0.5",
                             "request_queue_time_seconds_sum=0.1",
                             "inter_token_latency_seconds_sum=0.03",
                             "time_per_output_token_seconds_sum=0.03",
                             "e2e_request_latency_seconds_sum=2",
                             "request_prompt_tokens_sum=11",
                             "request_generation_tokens_sum=3",
                             "prompt_tokens_cached_total=3",
                             "corrupted_requests_total=1",
                             "request_prefill_time_seconds_sum=0.5",
                             "request_decode_time_seconds_sum=0.25",
                             "request_inference_time_seconds_sum=0.75",
                             "request_time_per_output_token_seconds_sum=0.125",
                             "request_prefill_kv_computed_tokens_sum=9",
                             "request_params_max_tokens_sum=40",
                             "request_params_n_sum=4",
                             "request_max_num_generation_tokens_sum=30",
                             "kv_block_lifetime_seconds_sum=90",
                             "kv_block_idle_before_evict_seconds_sum=30",
                             "kv_block_reuse_gap_seconds_sum=7"}) {
    std::string line = std::string("vllm:") + sample;
    line.replace(line.find('='), 1, labels);
    EXPECT_TRUE(Has(text, line)) << line;
  }
  EXPECT_TRUE(Has(
      text, R"(vllm:request_success_total{engine="0",model_name="m",finished_reason="abort"} 1)"));
  EXPECT_TRUE(Has(
      text, R"(vllm:request_success_total{engine="0",model_name="m",finished_reason="stop"} 0)"));
  for (
      const char* line :
      {R"(prompt_tokens_by_source_total{engine="0",model_name="m",source="local_compute"} 4)",
       R"(prompt_tokens_by_source_total{engine="0",model_name="m",source="local_cache_hit"} 3)",
       R"(prompt_tokens_by_source_total{engine="0",model_name="m",source="external_kv_transfer"} 0)",
       R"(prompt_tokens_cached_by_source_total{engine="0",model_name="m",source="device"} 3)",
       R"(num_requests_waiting_by_reason{engine="0",model_name="m",reason="deferred"} 0)",
       R"(num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 2)",
       R"(request_params_n_bucket{engine="0",model_name="m",le="2"} 0)",
       R"(request_params_n_bucket{engine="0",model_name="m",le="5"} 1)"}) {
    EXPECT_TRUE(Has(text, std::string("vllm:") + line)) << line;
  }
  EXPECT_TRUE(Has(text,
                  "vllm:cache_config_info{engine=\"0\",block_size=\"16\",cache_dtype=\"f16\","
                  "enable_prefix_caching=\"False\",num_gpu_blocks=\"9\"} 1"))
      << text;
  EXPECT_TRUE(Has(text, R"(quern_requests_running{model="m"} 3)"));
}

}  // namespace
}  // namespace quern
