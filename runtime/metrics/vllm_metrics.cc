#include "runtime/metrics/vllm_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <string_view>

namespace quern {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

const Buckets kFirstToken = {0.001, 0.005, 0.01, 0.02,  0.04,  0.06,  0.08, 0.1,
                             0.25,  0.5,   0.75, 1.0,   2.5,   5.0,   7.5,  10.0,
                             20.0,  40.0,  80.0, 160.0, 640.0, 2560.0};
const Buckets kVllmInterToken = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,  0.3,  0.4, 0.5,
                                 0.75, 1.0,   2.5,  5.0,   7.5, 10.0, 20.0, 40.0, 80.0};
const Buckets kLatency = {0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,   10.0,   15.0,  20.0,
                          30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
const Buckets kStepTokens = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
// vLLM's end at the model's context, which is not known yet when the series begin.
const Buckets kVllmRequestTokens = {1,   2,    5,    10,   20,    50,    100,   200,
                                    500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

const Buckets kVllmBlock = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,  1,   2,
                            5,     10,    20,    30,   60,   120,  300, 600, 1200, 1800};
const Buckets kVllmChoices = {1, 2, 5, 10, 20};

// In the order of FinishedAs. vLLM has no word for a format that nothing fits.
constexpr std::array<std::string_view, 5> kFinishedReasons = {"stop", "length", "abort", "error",
                                                              "error"};
// Of RuntimeMetrics::kRejectReasons those that are a full queue, as vLLM's admission limits are.
constexpr std::array<std::string_view, 2> kAdmissionReasons = {"queue_full", "admission_full"};

}  // namespace

struct VllmMetrics::Maker {
  prometheus::Registry& registry;
  const prometheus::Labels labels;

  prometheus::Family<prometheus::Gauge>& Gauges(const char* name, const char* help) const {
    return prometheus::BuildGauge().Name(name).Help(help).Labels(labels).Register(registry);
  }
  prometheus::Gauge* Gauge(const char* name, const char* help) const {
    return &Gauges(name, help).Add({});
  }
  prometheus::Family<prometheus::Counter>& Counters(const char* name, const char* help) const {
    return prometheus::BuildCounter().Name(name).Help(help).Labels(labels).Register(registry);
  }
  prometheus::Counter* Counter(const char* name, const char* help) const {
    return &Counters(name, help).Add({});
  }
  prometheus::Histogram* Histogram(const char* name, const char* help,
                                   const Buckets& buckets) const {
    return &prometheus::BuildHistogram()
                .Name(name)
                .Help(help)
                .Labels(labels)
                .Register(registry)
                .Add({}, buckets);
  }
};

VllmMetrics::VllmMetrics(prometheus::Registry& registry, const std::string& model) {
  const Maker make{registry, {{"model_name", model}, {"engine", "0"}}};
  running_ = make.Gauge("vllm:num_requests_running", "As quern_requests_running.");
  waiting_ = make.Gauge("vllm:num_requests_waiting", "As quern_requests_waiting.");
  auto& waiting_by_reason =
      make.Gauges("vllm:num_requests_waiting_by_reason",
                  "As quern_requests_waiting: requests wait for capacity and nothing else.");
  waiting_for_capacity_ = &waiting_by_reason.Add({{"reason", "capacity"}});
  waiting_by_reason.Add({{"reason", "deferred"}});
  auto& sleep_states = make.Gauges("vllm:engine_sleep_state",
                                   "1 for the state of the engine; asleep it is discard_all.");
  awake_ = &sleep_states.Add({{"sleep_state", "awake"}});
  sleep_states.Add({{"sleep_state", "weights_offloaded"}});
  discarded_ = &sleep_states.Add({{"sleep_state", "discard_all"}});
  // vLLM's has no label with the model's name.
  cache_info_ = &prometheus::BuildGauge()
                     .Name("vllm:cache_config_info")
                     .Help("As quern_kv_cache_info, with vLLM's labels.")
                     .Labels({{"engine", "0"}})
                     .Register(registry);
  kv_usage_ = make.Gauge("vllm:kv_cache_usage_perc", "As quern_kv_cache_usage_ratio: 0 to 1.");
  gpu_cache_usage_ = make.Gauge("vllm:gpu_cache_usage_perc",
                                "The older name of vllm:kv_cache_usage_perc: 0 to 1.");
  prometheus::Counter* preemptions =
      make.Counter("vllm:num_preemptions_total", "As quern_preemptions_total, for all reasons.");
  auto& by_source = make.Counters("vllm:prompt_tokens_by_source_total",
                                  "As quern_prompt_tokens_by_source_total.");
  by_source.Add({{"source", "external_kv_transfer"}});
  following_ = {{{make.Counter("vllm:prompt_tokens_total", "As quern_prompt_tokens_total."),
                  &MetricsSnapshot::prompt_tokens_total},
                 {&by_source.Add({{"source", "local_compute"}}),
                  &MetricsSnapshot::prompt_tokens_computed_total},
                 {&by_source.Add({{"source", "local_cache_hit"}}),
                  &MetricsSnapshot::prompt_tokens_cached_total},
                 {make.Counter("vllm:prompt_tokens_cached_total",
                               "Prompt tokens that were found in the prefix cache."),
                  &MetricsSnapshot::prompt_tokens_cached_total},
                 {&make.Counters("vllm:prompt_tokens_cached_by_source_total",
                                 "As vllm:prompt_tokens_cached_total: all in the engine's memory.")
                       .Add({{"source", "device"}}),
                  &MetricsSnapshot::prompt_tokens_cached_total},
                 {make.Counter("vllm:generation_tokens_total", "As quern_generation_tokens_total."),
                  &MetricsSnapshot::generation_tokens_total},
                 {preemptions, &MetricsSnapshot::preemptions_kv_full_total},
                 {preemptions, &MetricsSnapshot::preemptions_fairness_total},
                 {make.Counter("vllm:prefix_cache_queries_total",
                               "As quern_prefix_cache_queries_total: in tokens."),
                  &MetricsSnapshot::prefix_queries_total},
                 {make.Counter("vllm:prefix_cache_hits_total",
                               "As quern_prefix_cache_hits_total: in tokens."),
                  &MetricsSnapshot::prefix_hits_total},
                 {make.Counter("vllm:gpu_prefix_cache_queries_total",
                               "The older name of vllm:prefix_cache_queries_total."),
                  &MetricsSnapshot::prefix_queries_total},
                 {make.Counter("vllm:gpu_prefix_cache_hits_total",
                               "The older name of vllm:prefix_cache_hits_total."),
                  &MetricsSnapshot::prefix_hits_total}}};
  auto& finished = make.Counters("vllm:request_success_total",
                                 "As quern_requests_finished_total, under vLLM's reasons.");
  for (size_t i = 0; i < kFinishedReasons.size(); ++i) {
    finished_[i] = &finished.Add({{"finished_reason", std::string(kFinishedReasons[i])}});
  }
  // vLLM's has no label `engine`: its frontend refuses, before any engine is asked.
  auto& rejections = prometheus::BuildCounter()
                         .Name("vllm:admission_rejections_total")
                         .Help("As quern_requests_rejected_total, for its reasons of a full queue.")
                         .Labels({{"model_name", model}})
                         .Register(registry);
  for (size_t i = 0; i < kAdmissionReasons.size(); ++i) {
    rejections_[i] = &rejections.Add({{"reason", std::string(kAdmissionReasons[i])}});
  }
  corrupted_ = make.Counter("vllm:corrupted_requests_total", "As quern_requests_corrupted_total.");
  AddHistograms(make);
}

void VllmMetrics::AddHistograms(const Maker& make) {
  prompt_tokens_ = make.Histogram("vllm:request_prompt_tokens", "As quern_request_prompt_tokens.",
                                  kVllmRequestTokens);
  generation_tokens_ = make.Histogram("vllm:request_generation_tokens",
                                      "As quern_request_generation_tokens.", kVllmRequestTokens);
  step_tokens_ =
      make.Histogram("vllm:iteration_tokens_total", "As quern_step_batch_tokens.", kStepTokens);
  first_token_ = make.Histogram("vllm:time_to_first_token_seconds",
                                "As quern_time_to_first_token_seconds.", kFirstToken);
  inter_token_ = make.Histogram("vllm:inter_token_latency_seconds",
                                "As quern_inter_token_latency_seconds.", kVllmInterToken);
  time_per_output_token_ =
      make.Histogram("vllm:time_per_output_token_seconds",
                     "The older name of vllm:inter_token_latency_seconds.", kVllmInterToken);
  latency_ = make.Histogram("vllm:e2e_request_latency_seconds",
                            "As quern_request_duration_seconds.", kLatency);
  queue_ = make.Histogram("vllm:request_queue_time_seconds", "As quern_request_queue_seconds.",
                          kLatency);
  prefill_ = make.Histogram("vllm:request_prefill_time_seconds",
                            "As quern_request_prefill_seconds.", kLatency);
  decode_ = make.Histogram("vllm:request_decode_time_seconds", "As quern_request_decode_seconds.",
                           kLatency);
  inference_ = make.Histogram("vllm:request_inference_time_seconds",
                              "As quern_request_inference_seconds.", kLatency);
  request_time_per_output_token_ =
      make.Histogram("vllm:request_time_per_output_token_seconds",
                     "As quern_request_time_per_output_token_seconds.", kVllmInterToken);
  computed_tokens_ =
      make.Histogram("vllm:request_prefill_kv_computed_tokens",
                     "As quern_request_prefill_computed_tokens.", kVllmRequestTokens);
  max_tokens_ = make.Histogram("vllm:request_params_max_tokens",
                               "As quern_request_params_max_tokens.", kVllmRequestTokens);
  choices_ = make.Histogram("vllm:request_params_n", "As quern_request_params_n.", kVllmChoices);
  most_generation_tokens_ =
      make.Histogram("vllm:request_max_num_generation_tokens",
                     "As quern_request_max_generation_tokens.", kVllmRequestTokens);
  block_lifetime_ = make.Histogram("vllm:kv_block_lifetime_seconds",
                                   "As quern_kv_block_lifetime_seconds.", kVllmBlock);
  block_idle_ = make.Histogram("vllm:kv_block_idle_before_evict_seconds",
                               "As quern_kv_block_idle_before_evict_seconds.", kVllmBlock);
  block_reuse_ = make.Histogram("vllm:kv_block_reuse_gap_seconds",
                                "As quern_kv_block_reuse_gap_seconds.", kVllmBlock);
}

void VllmMetrics::ObserveStep(double tokens) { step_tokens_->Observe(tokens); }

void VllmMetrics::ObserveFirstToken(double since_submit, double queued) {
  first_token_->Observe(since_submit);
  queue_->Observe(queued);
}

void VllmMetrics::ObserveInterToken(double gap) {
  inter_token_->Observe(gap);
  time_per_output_token_->Observe(gap);
}

void VllmMetrics::ObserveBlockEvicted(double lifetime, double idle) {
  block_lifetime_->Observe(lifetime);
  block_idle_->Observe(idle);
}

void VllmMetrics::ObserveBlockReused(double gap) { block_reuse_->Observe(gap); }

void VllmMetrics::CountFinished(const FinishedRequest& request) {
  finished_[static_cast<size_t>(request.how)]->Increment();
  latency_->Observe(request.since_submit);
  prompt_tokens_->Observe(request.prompt_tokens);
  generation_tokens_->Observe(request.generation_tokens);
  if (request.corrupted) corrupted_->Increment();
  if (request.computed_tokens > 0) computed_tokens_->Observe(request.computed_tokens);
  if (request.max_tokens > 0) max_tokens_->Observe(request.max_tokens);
  if (request.generation_tokens > 0) {
    prefill_->Observe(request.prefill);
    decode_->Observe(request.decode);
    inference_->Observe(request.prefill + request.decode);
  }
  if (request.generation_tokens > 1) {
    request_time_per_output_token_->Observe(request.decode / (request.generation_tokens - 1));
  }
}

void VllmMetrics::CountPromptFinished(int32_t choices, int32_t most_generation_tokens) {
  choices_->Observe(choices);
  if (most_generation_tokens > 0) most_generation_tokens_->Observe(most_generation_tokens);
}

void VllmMetrics::CountRejected(std::string_view reason) {
  for (size_t i = 0; i < kAdmissionReasons.size(); ++i) {
    if (reason == kAdmissionReasons[i]) rejections_[i]->Increment();
  }
}

void VllmMetrics::SetKvCacheInfo(const KvCacheInfo& info) {
  cache_info_
      ->Add({{"block_size", std::to_string(info.block_tokens)},
             {"cache_dtype", info.dtype},
             {"enable_prefix_caching", info.prefix_cache ? "True" : "False"},
             {"num_gpu_blocks", std::to_string(info.blocks)}})
      .Set(1);
}

void VllmMetrics::Set(const MetricsSnapshot& now) {
  running_->Set(now.running);
  waiting_->Set(now.waiting);
  waiting_for_capacity_->Set(now.waiting);
  awake_->Set(now.sleeping ? 0 : 1);
  discarded_->Set(now.sleeping ? 1 : 0);
  const double usage = now.kv_tokens_capacity > 0
                           ? static_cast<double>(now.kv_tokens_used) / now.kv_tokens_capacity
                           : 0.0;
  kv_usage_->Set(usage);
  gpu_cache_usage_->Set(usage);
  for (Following& following : following_) {
    const uint64_t total = now.*following.total;
    if (total <= following.seen) continue;
    following.counter->Increment(static_cast<double>(total - following.seen));
    following.seen = total;
  }
}

}  // namespace quern
