#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

// Figures read anew at each scrape.
struct MetricsSnapshot {
  int32_t running = 0;
  int32_t waiting = 0;
  int64_t kv_tokens_used = 0;
  int64_t kv_tokens_capacity = 0;
  double tokens_per_second = 0;
  uint64_t prompt_tokens_total = 0;
  uint64_t prompt_tokens_computed_total = 0;  // of them; the rest was found in the prefix cache
  uint64_t prompt_tokens_cached_total = 0;
  uint64_t generation_tokens_total = 0;
  uint64_t preemptions_kv_full_total = 0;
  uint64_t preemptions_fairness_total = 0;
  uint64_t preempted_tokens_total = 0;
  // Seconds of a step for each: the step itself, a sequence that decodes, a prompt token, a token
  // looked back at, a token loaded for that.
  std::array<double, 5> step_times{};
  double step_time_error_ratio = 0;
  bool sleeping = false;
  uint64_t prefix_queries_total = 0;
  uint64_t prefix_hits_total = 0;
};

enum class FinishedAs { kStop, kLength, kCancelled, kFormat, kError };

// A request of the engine (one choice) that ended. Times in seconds.
struct FinishedRequest {
  FinishedAs how = FinishedAs::kStop;
  double since_submit = 0;
  int32_t prompt_tokens = 0;
  int32_t computed_tokens = 0;  // of the prompt, not from the prefix cache; 0: it never ran
  int32_t generation_tokens = 0;
  int32_t max_tokens = 0;  // that were asked for
  // From its first step to its first token, and from that to its last one; only where tokens were
  // generated.
  double prefill = 0;
  double decode = 0;
  bool corrupted = false;  // ended by a logit that is no number
};

struct KvCacheInfo {
  std::string dtype;
  int32_t block_tokens = 0;
  int32_t blocks = 0;
  bool prefix_cache = true;
};

// Under which names the figures are shown besides quern_*.
enum class MetricsCompat { kNone, kVllm };

// The runtime's Prometheus metrics: every name, type and label that /metrics of quern-serve shows.
// They are a contract with the operator and with dashboards, pinned by
// tests/contract/runtime/metrics.golden. All carry the label `model`, but for those of
// MetricsCompat, which have the labels of their origin. Thread-safe.
class RuntimeMetrics {
 public:
  // Why a request or a connection was turned away or cut, each a value of the label `reason`. The
  // first ones are the serving API's; the rest are limits of the HTTP side.
  static constexpr std::array<std::string_view, 18> kRejectReasons = {
      "queue_full",      "admission_full", "tenant_limit",  "context_length", "loading",
      "sleeping",        "draining",       "connections",   "header_bytes",   "body_bytes",
      "header_timeout",  "body_timeout",   "idle_timeout",  "write_timeout",  "stream_buffer",
      "pipelined_bytes", "held_bodies",    "held_responses"};

  explicit RuntimeMetrics(const std::string& model, MetricsCompat compat = MetricsCompat::kNone);
  ~RuntimeMetrics();
  RuntimeMetrics(const RuntimeMetrics&) = delete;
  RuntimeMetrics& operator=(const RuntimeMetrics&) = delete;

  // Sets quern_model_info to 1. Call once, when the model has been loaded.
  void SetModelInfo(const std::string& architecture, const std::string& quantization,
                    const std::string& version);
  // Sets quern_compute_info to 1. Call once: the processor, and how it is used, as
  // ModelInfo::compute.
  void SetComputeInfo(const std::string& cpu, const std::string& compute);
  // Sets quern_gpu_info to 1, with the names of dcgm-exporter's labels. Call once, with a GPU.
  void SetGpuInfo(const std::string& name, const std::string& uuid);
  // Sets quern_tensor_parallel_size: the processes that the model is split over.
  void SetTensorParallelSize(int32_t size);
  // Sets quern_kv_cache_info to 1. Call once, when the KV cache has been made.
  void SetKvCacheInfo(const KvCacheInfo& info);

  // Times in seconds.
  void ObserveStep(double seconds, int32_t sequences, double tokens);
  void ObserveFirstToken(double since_submit, double queued);
  void ObserveInterToken(double gap);
  // Of a block of the prefix cache: BlockHistory's times.
  void ObserveBlockEvicted(double lifetime, double idle);
  void ObserveBlockReused(double gap);
  void CountFinished(const FinishedRequest& request);
  // A prompt of which all `choices` have ended, with the most tokens that one of them generated.
  void CountPromptFinished(int32_t choices, int32_t most_generation_tokens);
  void CountAdmitted(int32_t prompt_tokens);
  void CountRejected(std::string_view reason);  // one of kRejectReasons
  void CountHttpRequest(std::string_view handler, int status);

  // Where the API is used with keys. The series of these tenants exist from now on, those of others
  // no longer; the bound of their number is the caller's.
  void SetTenants(const std::vector<std::string>& names);
  void SetTenantsFileValid(bool valid);
  // A request of the tenant that ended, with what it used, or one that was refused for load (429).
  // Of a tenant that is not there any more, nothing is counted.
  void CountTenantFinished(const std::string& tenant, FinishedAs how, int32_t prompt_tokens,
                           int32_t generation_tokens);
  void CountTenantRefused(const std::string& tenant);

  // The text exposition format 0.0.4, gauges set from `now`. Totals in it never go down.
  std::string Render(const MetricsSnapshot& now);

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace quern
