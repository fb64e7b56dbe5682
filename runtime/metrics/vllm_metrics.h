#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "runtime/metrics/runtime_metrics.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
class Registry;
template <typename T>
class Family;
}  // namespace prometheus

namespace quern {

// The figures of RuntimeMetrics again, under the names, labels and bucket bounds that vLLM's v1
// engine gives them, so that dashboards and routers written for vLLM read them. What of vLLM's is
// missing is listed in docs/monitoring.md. Names since vLLM 0.8, the newest as of 0.32:
// vllm/v1/metrics/loggers.py, docs/usage/metrics.md. Thread-safe, but for Set.
class VllmMetrics {
 public:
  // Registers the series; `registry` outlives this.
  VllmMetrics(prometheus::Registry& registry, const std::string& model);

  void ObserveStep(double tokens);
  void ObserveFirstToken(double since_submit, double queued);
  void ObserveInterToken(double gap);
  void ObserveBlockEvicted(double lifetime, double idle);
  void ObserveBlockReused(double gap);
  void CountFinished(const FinishedRequest& request);
  void CountPromptFinished(int32_t choices, int32_t most_generation_tokens);
  void CountRejected(std::string_view reason);  // one of RuntimeMetrics::kRejectReasons
  void SetKvCacheInfo(const KvCacheInfo& info);
  // Gauges and totals of `now`; one call at a time. Totals never go down.
  void Set(const MetricsSnapshot& now);

 private:
  // A counter that follows a total of the snapshot.
  struct Following {
    prometheus::Counter* counter;
    uint64_t MetricsSnapshot::*total;
    uint64_t seen = 0;
  };
  struct Maker;  // of series

  void AddHistograms(const Maker& make);

  prometheus::Gauge* running_;
  prometheus::Gauge* waiting_;
  prometheus::Gauge* kv_usage_;
  prometheus::Gauge* gpu_cache_usage_;  // the name that kv_cache_usage_perc had before
  prometheus::Gauge* waiting_for_capacity_;
  prometheus::Gauge* awake_;
  prometheus::Gauge* discarded_;  // asleep, without weights and KV cache
  prometheus::Family<prometheus::Gauge>* cache_info_;
  std::array<Following, 12> following_;
  std::array<prometheus::Counter*, 5> finished_;
  std::array<prometheus::Counter*, 2> rejections_;
  prometheus::Counter* corrupted_;
  prometheus::Histogram* prompt_tokens_;
  prometheus::Histogram* generation_tokens_;
  prometheus::Histogram* step_tokens_;
  prometheus::Histogram* first_token_;
  prometheus::Histogram* inter_token_;
  prometheus::Histogram* time_per_output_token_;  // the name that inter_token_latency had before
  prometheus::Histogram* latency_;
  prometheus::Histogram* queue_;
  prometheus::Histogram* prefill_;
  prometheus::Histogram* decode_;
  prometheus::Histogram* inference_;
  prometheus::Histogram* request_time_per_output_token_;
  prometheus::Histogram* computed_tokens_;
  prometheus::Histogram* max_tokens_;
  prometheus::Histogram* choices_;
  prometheus::Histogram* most_generation_tokens_;
  prometheus::Histogram* block_lifetime_;
  prometheus::Histogram* block_idle_;
  prometheus::Histogram* block_reuse_;
};

}  // namespace quern
