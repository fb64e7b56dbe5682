#include "runtime/metrics/runtime_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cassert>
#include <map>
#include <mutex>
#include <optional>

#include "runtime/base/cgroup.h"
#include "runtime/metrics/tenant_metrics.h"
#include "runtime/metrics/vllm_metrics.h"

namespace quern {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

// Upper bounds. Dense around what people set objectives on: a TTFT of 0.1 to 5 s, an ITL of 10 to
// 200 ms; wide enough for a long prompt on a slow machine.
const Buckets kTimeToFirstToken = {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
                                   1.0,   1.5,  2.0,   3.0,  5.0,   7.5, 10,   20,  40,  80};
const Buckets kInterToken = {0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05,
                             0.075, 0.1,    0.15,  0.2,    0.3,  0.5,   0.75, 1.0,  2.5};
const Buckets kDuration = {0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10,
                           15,   20,  30,   45,  60,  120, 240, 480, 960};
const Buckets kQueue = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                        0.25,   0.5,   1.0,    2.5,   5.0,  10,    30,   60};
const Buckets kStep = {0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05,
                       0.075,  0.1,   0.15,   0.2,   0.3,    0.5,  1.0,   2.5,  5.0};
const Buckets kBatchSequences = {1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256};
const Buckets kBatchTokens = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192};

const Buckets kRequestTokens = {1,    8,    16,   32,   64,    128,   256,   512,
                                1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};
const Buckets kBlock = {0.1, 0.5, 1,   2,    5,    10,   20,    30,    60,
                        120, 300, 600, 1200, 3600, 7200, 14400, 28800, 86400};
const Buckets kChoices = {1, 2, 4, 8, 16, 32, 64, 128};

constexpr std::array<std::string_view, 5> kFinishReasons = {"stop", "length", "cancelled", "format",
                                                            "error"};
constexpr std::array<const char*, 5> kStepTerms = {"step", "decode_sequence", "prefill_token",
                                                   "attended_token", "loaded_token"};

}  // namespace

struct RuntimeMetrics::Families {
  explicit Families(const std::string& served) : model{{"model", served}} {}

  prometheus::Gauge& Gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Labels(model).Register(registry).Add({});
  }
  prometheus::Family<prometheus::Counter>& Counters(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Labels(model).Register(registry);
  }
  prometheus::Counter& Counter(const char* name, const char* help) {
    return Counters(name, help).Add({});
  }
  prometheus::Histogram& Histogram(const char* name, const char* help, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Labels(model).Register(registry).Add(
        {}, buckets);
  }

  const prometheus::Labels model;
  prometheus::Registry registry;

  prometheus::Gauge& running = Gauge("quern_requests_running", "Sequences in the running batch.");
  prometheus::Gauge& waiting =
      Gauge("quern_requests_waiting", "Requests that wait for a place in the batch.");
  prometheus::Gauge& kv_usage = Gauge("quern_kv_cache_usage_ratio",
                                      "Part of the KV cache's blocks that requests hold, 0 to 1.");
  prometheus::Gauge& kv_capacity =
      Gauge("quern_kv_cache_tokens_capacity", "Tokens that the KV cache can hold.");
  prometheus::Gauge& token_rate = Gauge(
      "quern_tokens_per_second", "Tokens generated per second, mean over the last 10 seconds.");
  prometheus::Gauge& sleeping =
      Gauge("quern_engine_sleeping", "1 while the model sleeps: without weights and KV cache.");
  prometheus::Gauge& resident = Gauge("quern_process_resident_memory_bytes",
                                      "Resident memory of the process, weights and KV included.");
  prometheus::Counter& cpu_seconds =
      Counter("quern_process_cpu_seconds_total",
              "Processor time that all threads of the process have taken.");
  std::array<prometheus::Gauge*, kStepTerms.size()> step_times{};
  prometheus::Gauge& step_time_error =
      Gauge("quern_step_time_error_ratio",
            "How far predictions from quern_step_time_fit_seconds are off, mean of recent steps.");
  prometheus::Family<prometheus::Gauge>& model_info =
      prometheus::BuildGauge()
          .Name("quern_model_info")
          .Help("The model that is served, as labels; the value is 1.")
          .Labels(model)
          .Register(registry);

  prometheus::Family<prometheus::Gauge>& compute_info =
      prometheus::BuildGauge()
          .Name("quern_compute_info")
          .Help("What computes, as labels; the value is 1.")
          .Labels(model)
          .Register(registry);

  prometheus::Family<prometheus::Gauge>& gpu_info =
      prometheus::BuildGauge()
          .Name("quern_gpu_info")
          .Help("The GPU that computes, as labels; the value is 1.")
          .Labels(model)
          .Register(registry);

  prometheus::Gauge& tensor_parallel_size =
      Gauge("quern_tensor_parallel_size",
            "Processes that the model is split over; 0 until it is loaded.");

  prometheus::Family<prometheus::Gauge>& kv_cache_info =
      prometheus::BuildGauge()
          .Name("quern_kv_cache_info")
          .Help("How the KV cache was made, as labels; the value is 1.")
          .Labels(model)
          .Register(registry);

  prometheus::Counter& prompt_tokens =
      Counter("quern_prompt_tokens_total",
              "Prompt tokens that were computed or found in the prefix cache.");
  prometheus::Family<prometheus::Counter>& prompt_tokens_by_source =
      Counters("quern_prompt_tokens_by_source_total",
               "The tokens of quern_prompt_tokens_total, by where their KV came from.");
  prometheus::Counter& prompt_tokens_computed =
      prompt_tokens_by_source.Add({{"source", "computed"}});
  prometheus::Counter& prompt_tokens_cached =
      prompt_tokens_by_source.Add({{"source", "prefix_cache"}});
  prometheus::Counter& generation_tokens =
      Counter("quern_generation_tokens_total", "Tokens that were generated.");
  prometheus::Counter& admitted =
      Counter("quern_admitted_requests_total", "Requests that were handed to the engine.");
  prometheus::Counter& admitted_prompt_tokens = Counter(
      "quern_admitted_prompt_tokens_total", "Prompt tokens of the requests handed to the engine.");
  prometheus::Family<prometheus::Counter>& preemptions = Counters(
      "quern_preemptions_total",
      "Sequences that lost their place in the batch: the KV cache was full, or a tenant had "
      "less than its fair share.");
  prometheus::Counter& preempted_kv_full = preemptions.Add({{"reason", "kv_full"}});
  prometheus::Counter& preempted_fairness = preemptions.Add({{"reason", "fairness"}});
  prometheus::Counter& preempted_tokens =
      Counter("quern_preempted_tokens_total",
              "Tokens that preempted sequences had in the KV cache and that were computed again.");
  prometheus::Counter& prefix_queries = Counter(
      "quern_prefix_cache_queries_total", "Prompt tokens that were looked up in the prefix cache.");
  prometheus::Counter& prefix_hits =
      Counter("quern_prefix_cache_hits_total",
              "Prompt tokens that were found in the prefix cache and not computed.");
  std::array<prometheus::Counter*, 5> finished{};
  prometheus::Counter& corrupted =
      Counter("quern_requests_corrupted_total",
              "Requests that ended in an error because a logit was NaN or infinite.");
  std::map<std::string, prometheus::Counter*, std::less<>> rejected;
  prometheus::Family<prometheus::Counter>& http_requests = Counters(
      "quern_http_requests_total",
      "HTTP requests answered, by route and status; 499 where the client left before the answer.");

  prometheus::Histogram& first_token =
      Histogram("quern_time_to_first_token_seconds",
                "Time from a request's submission to its first token.", kTimeToFirstToken);
  prometheus::Histogram& inter_token = Histogram(
      "quern_inter_token_latency_seconds", "Time between two tokens of one request.", kInterToken);
  prometheus::Histogram& duration =
      Histogram("quern_request_duration_seconds",
                "Time from a request's submission to its last token.", kDuration);
  prometheus::Histogram& queue =
      Histogram("quern_request_queue_seconds",
                "Time that a request waited for a place in the batch.", kQueue);
  prometheus::Histogram& prefill =
      Histogram("quern_request_prefill_seconds",
                "Time from a request's first step to its first token.", kTimeToFirstToken);
  prometheus::Histogram& decode =
      Histogram("quern_request_decode_seconds",
                "Time from a request's first token to its last one.", kDuration);
  prometheus::Histogram& inference =
      Histogram("quern_request_inference_seconds",
                "Time from a request's first step to its last token.", kDuration);
  prometheus::Histogram& time_per_output_token =
      Histogram("quern_request_time_per_output_token_seconds",
                "Mean time between two tokens of each request with more than one.", kInterToken);
  prometheus::Histogram& request_prompt_tokens = Histogram(
      "quern_request_prompt_tokens", "Prompt tokens of each request that ended.", kRequestTokens);
  prometheus::Histogram& request_generation_tokens =
      Histogram("quern_request_generation_tokens", "Tokens generated for each request that ended.",
                kRequestTokens);
  prometheus::Histogram& computed_tokens = Histogram(
      "quern_request_prefill_computed_tokens",
      "Prompt tokens of each request that were not found in the prefix cache.", kRequestTokens);
  prometheus::Histogram& max_tokens = Histogram(
      "quern_request_params_max_tokens", "Tokens that each request may generate.", kRequestTokens);
  prometheus::Histogram& choices =
      Histogram("quern_request_params_n", "Choices that were asked for of each prompt.", kChoices);
  prometheus::Histogram& most_generation_tokens =
      Histogram("quern_request_max_generation_tokens",
                "Tokens generated in the longest choice of each prompt.", kRequestTokens);
  prometheus::Histogram& step = Histogram(
      "quern_step_duration_seconds", "Time of one engine step: forward pass and sampling.", kStep);
  prometheus::Histogram& batch_sequences =
      Histogram("quern_step_batch_sequences", "Sequences in one engine step.", kBatchSequences);
  prometheus::Histogram& batch_tokens =
      Histogram("quern_step_batch_tokens",
                "Tokens in one engine step, prefilled and decoded ones together.", kBatchTokens);

  prometheus::Histogram& block_lifetime =
      Histogram("quern_kv_block_lifetime_seconds",
                "Time from when a KV block was handed out to when its tokens gave way.", kBlock);
  prometheus::Histogram& block_idle =
      Histogram("quern_kv_block_idle_before_evict_seconds",
                "Time from when a KV block was last used to when its tokens gave way.", kBlock);
  prometheus::Histogram& block_reuse =
      Histogram("quern_kv_block_reuse_gap_seconds",
                "Time from when a kept KV block was last used to when it was found.", kBlock);

  std::optional<VllmMetrics> vllm;       // where its names are wanted
  std::optional<TenantMetrics> tenants;  // set once, before the first request

  // Counters that follow totals of the snapshot: a total that went down changes nothing.
  struct Following {
    prometheus::Counter& counter;
    uint64_t MetricsSnapshot::*total;
    uint64_t seen = 0;
  };
  std::mutex render_mutex;  // of what `following` has seen
  std::array<Following, 9> following{
      {{prompt_tokens, &MetricsSnapshot::prompt_tokens_total},
       {prompt_tokens_computed, &MetricsSnapshot::prompt_tokens_computed_total},
       {prompt_tokens_cached, &MetricsSnapshot::prompt_tokens_cached_total},
       {generation_tokens, &MetricsSnapshot::generation_tokens_total},
       {preempted_kv_full, &MetricsSnapshot::preemptions_kv_full_total},
       {preempted_fairness, &MetricsSnapshot::preemptions_fairness_total},
       {preempted_tokens, &MetricsSnapshot::preempted_tokens_total},
       {prefix_queries, &MetricsSnapshot::prefix_queries_total},
       {prefix_hits, &MetricsSnapshot::prefix_hits_total}}};
};

RuntimeMetrics::RuntimeMetrics(const std::string& model, MetricsCompat compat)
    : families_(std::make_unique<Families>(model)) {
  if (compat == MetricsCompat::kVllm) families_->vllm.emplace(families_->registry, model);
  // Every series with a fixed label exists from the start, as 0: rate() needs the first step too.
  auto& finished =
      families_->Counters("quern_requests_finished_total", "Requests that ended, by reason.");
  for (size_t i = 0; i < kFinishReasons.size(); ++i) {
    families_->finished[i] = &finished.Add({{"reason", std::string(kFinishReasons[i])}});
  }
  auto& step_times =
      prometheus::BuildGauge()
          .Name("quern_step_time_fit_seconds")
          .Help(
              "What a step's time is made of, as fitted: a step itself, each sequence that "
              "decodes, each prompt token, each token that attention looks back at, each that it "
              "loads.")
          .Labels(families_->model)
          .Register(families_->registry);
  for (size_t i = 0; i < kStepTerms.size(); ++i) {
    families_->step_times[i] = &step_times.Add({{"term", kStepTerms[i]}});
  }
  auto& rejected = families_->Counters(
      "quern_requests_rejected_total",
      "Requests and connections turned away or cut because a limit was met, by limit.");
  for (const std::string_view reason : kRejectReasons) {
    families_->rejected[std::string(reason)] = &rejected.Add({{"reason", std::string(reason)}});
  }
}

RuntimeMetrics::~RuntimeMetrics() = default;

void RuntimeMetrics::SetModelInfo(const std::string& architecture, const std::string& quantization,
                                  const std::string& version) {
  families_->model_info
      .Add({{"architecture", architecture}, {"quantization", quantization}, {"version", version}})
      .Set(1);
}

void RuntimeMetrics::SetComputeInfo(const std::string& cpu, const std::string& compute) {
  families_->compute_info.Add({{"cpu", cpu}, {"compute", compute}}).Set(1);
}

void RuntimeMetrics::SetTensorParallelSize(int32_t size) {
  families_->tensor_parallel_size.Set(size);
}

void RuntimeMetrics::SetGpuInfo(const std::string& name, const std::string& uuid) {
  families_->gpu_info.Add({{"modelName", name}, {"UUID", uuid}}).Set(1);
}

void RuntimeMetrics::SetKvCacheInfo(const KvCacheInfo& info) {
  families_->kv_cache_info
      .Add({{"dtype", info.dtype},
            {"block_tokens", std::to_string(info.block_tokens)},
            {"blocks", std::to_string(info.blocks)},
            {"prefix_cache", info.prefix_cache ? "on" : "off"}})
      .Set(1);
  if (families_->vllm) families_->vllm->SetKvCacheInfo(info);
}

void RuntimeMetrics::ObserveStep(double seconds, int32_t sequences, double tokens) {
  families_->step.Observe(seconds);
  families_->batch_sequences.Observe(sequences);
  families_->batch_tokens.Observe(tokens);
  if (families_->vllm) families_->vllm->ObserveStep(tokens);
}

void RuntimeMetrics::ObserveFirstToken(double since_submit, double queued) {
  families_->first_token.Observe(since_submit);
  families_->queue.Observe(queued);
  if (families_->vllm) families_->vllm->ObserveFirstToken(since_submit, queued);
}

void RuntimeMetrics::ObserveInterToken(double gap) {
  families_->inter_token.Observe(gap);
  if (families_->vllm) families_->vllm->ObserveInterToken(gap);
}

void RuntimeMetrics::ObserveBlockEvicted(double lifetime, double idle) {
  families_->block_lifetime.Observe(lifetime);
  families_->block_idle.Observe(idle);
  if (families_->vllm) families_->vllm->ObserveBlockEvicted(lifetime, idle);
}

void RuntimeMetrics::ObserveBlockReused(double gap) {
  families_->block_reuse.Observe(gap);
  if (families_->vllm) families_->vllm->ObserveBlockReused(gap);
}

void RuntimeMetrics::CountFinished(const FinishedRequest& request) {
  Families& f = *families_;
  f.finished[static_cast<size_t>(request.how)]->Increment();
  f.duration.Observe(request.since_submit);
  f.request_prompt_tokens.Observe(request.prompt_tokens);
  f.request_generation_tokens.Observe(request.generation_tokens);
  if (request.corrupted) f.corrupted.Increment();
  if (request.computed_tokens > 0) f.computed_tokens.Observe(request.computed_tokens);
  if (request.max_tokens > 0) f.max_tokens.Observe(request.max_tokens);
  if (request.generation_tokens > 0) {
    f.prefill.Observe(request.prefill);
    f.decode.Observe(request.decode);
    f.inference.Observe(request.prefill + request.decode);
  }
  if (request.generation_tokens > 1) {
    f.time_per_output_token.Observe(request.decode / (request.generation_tokens - 1));
  }
  if (f.vllm) f.vllm->CountFinished(request);
}

void RuntimeMetrics::CountPromptFinished(int32_t choices, int32_t most_generation_tokens) {
  families_->choices.Observe(choices);
  if (most_generation_tokens > 0) {
    families_->most_generation_tokens.Observe(most_generation_tokens);
  }
  if (families_->vllm) families_->vllm->CountPromptFinished(choices, most_generation_tokens);
}

void RuntimeMetrics::CountAdmitted(int32_t prompt_tokens) {
  families_->admitted.Increment();
  families_->admitted_prompt_tokens.Increment(prompt_tokens);
}

void RuntimeMetrics::CountRejected(std::string_view reason) {
  const auto found = families_->rejected.find(reason);
  assert(found != families_->rejected.end());
  if (found != families_->rejected.end()) found->second->Increment();
  if (families_->vllm) families_->vllm->CountRejected(reason);
}

void RuntimeMetrics::CountHttpRequest(std::string_view handler, int status) {
  families_->http_requests
      .Add({{"handler", std::string(handler)}, {"status", std::to_string(status)}})
      .Increment();
}

void RuntimeMetrics::SetTenants(const std::vector<std::string>& names) {
  if (!families_->tenants)
    families_->tenants.emplace(families_->registry, families_->model.at("model"));
  families_->tenants->Set(names);
}

void RuntimeMetrics::SetTenantsFileValid(bool valid) { families_->tenants->SetFileValid(valid); }

void RuntimeMetrics::CountTenantFinished(const std::string& tenant, FinishedAs how,
                                         int32_t prompt_tokens, int32_t generation_tokens) {
  if (!families_->tenants) return;
  families_->tenants->CountFinished(tenant, how, prompt_tokens, generation_tokens);
}

void RuntimeMetrics::CountTenantRefused(const std::string& tenant) {
  if (families_->tenants) families_->tenants->CountRefused(tenant);
}

std::string RuntimeMetrics::Render(const MetricsSnapshot& now) {
  Families& f = *families_;
  std::lock_guard lock(f.render_mutex);
  f.running.Set(now.running);
  f.waiting.Set(now.waiting);
  f.kv_usage.Set(now.kv_tokens_capacity > 0
                     ? static_cast<double>(now.kv_tokens_used) / now.kv_tokens_capacity
                     : 0.0);
  f.kv_capacity.Set(static_cast<double>(now.kv_tokens_capacity));
  f.token_rate.Set(now.tokens_per_second);
  f.sleeping.Set(now.sleeping ? 1 : 0);
  for (size_t i = 0; i < kStepTerms.size(); ++i) f.step_times[i]->Set(now.step_times[i]);
  f.step_time_error.Set(now.step_time_error_ratio);
  f.resident.Set(static_cast<double>(ProcessMemoryUse().resident_bytes));
  f.cpu_seconds.Increment(std::max(0.0, ProcessCpuSeconds() - f.cpu_seconds.Value()));
  for (Families::Following& following : f.following) {
    const uint64_t total = now.*following.total;
    if (total <= following.seen) continue;
    following.counter.Increment(static_cast<double>(total - following.seen));
    following.seen = total;
  }
  if (f.vllm) f.vllm->Set(now);
  return prometheus::TextSerializer().Serialize(f.registry.Collect());
}

}  // namespace quern
