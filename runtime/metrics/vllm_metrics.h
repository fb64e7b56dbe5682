#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "runtime/metrics/runtime_metrics.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
class Registry;
}  // namespace prometheus

namespace quern {

// The figures of RuntimeMetrics again, under the names, labels and bucket bounds that vLLM's v1
// engine gives them, so that dashboards and routers written for vLLM read them. What of vLLM's is
// missing is listed in docs/monitoring.md. Names as of vLLM 0.12: vllm/v1/metrics/loggers.py,
// docs/design/metrics.md. Thread-safe, but for Set.
class VllmMetrics {
 public:
  // Registers the series; `registry` outlives this.
  VllmMetrics(prometheus::Registry& registry, const std::string& model);

  void ObserveStep(int32_t tokens);
  void ObserveFirstToken(double since_submit, double queued);
  void ObserveInterToken(double gap);
  void CountFinished(FinishedAs how, double since_submit, int32_t prompt_tokens,
                     int32_t generation_tokens);
  // Gauges and totals of `now`; one call at a time. Totals never go down.
  void Set(const MetricsSnapshot& now);

 private:
  // A counter that follows a total of the snapshot.
  struct Following {
    prometheus::Counter* counter;
    uint64_t MetricsSnapshot::*total;
    uint64_t seen = 0;
  };

  prometheus::Gauge* running_;
  prometheus::Gauge* waiting_;
  prometheus::Gauge* kv_usage_;
  prometheus::Gauge* gpu_cache_usage_;  // the name that kv_cache_usage_perc had before
  std::array<Following, 6> following_;
  std::array<prometheus::Counter*, 4> finished_;
  prometheus::Histogram* prompt_tokens_;
  prometheus::Histogram* generation_tokens_;
  prometheus::Histogram* step_tokens_;
  prometheus::Histogram* first_token_;
  prometheus::Histogram* inter_token_;
  prometheus::Histogram* time_per_output_token_;  // the name that inter_token_latency had before
  prometheus::Histogram* latency_;
  prometheus::Histogram* queue_;
};

}  // namespace quern
