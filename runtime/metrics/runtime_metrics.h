#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace quern {

// Figures read anew at each scrape.
struct MetricsSnapshot {
  int32_t running = 0;
  int32_t waiting = 0;
  int64_t kv_tokens_used = 0;
  int64_t kv_tokens_capacity = 0;
  double tokens_per_second = 0;
  uint64_t prompt_tokens_total = 0;
  uint64_t generation_tokens_total = 0;
  uint64_t preemptions_kv_full_total = 0;
  uint64_t preemptions_fairness_total = 0;
  uint64_t preempted_tokens_total = 0;
  uint64_t prefix_queries_total = 0;
  uint64_t prefix_hits_total = 0;
};

enum class FinishedAs { kStop, kLength, kCancelled, kError };

// The runtime's Prometheus metrics: every name, type and label that /metrics of quern-serve shows.
// They are a contract with the operator and with dashboards, pinned by
// tests/contract/runtime/metrics.golden. All carry the label `model`. Thread-safe.
class RuntimeMetrics {
 public:
  // Why a request or a connection was turned away or cut, each a value of the label `reason`. The
  // first ones are the serving API's; the rest are limits of the HTTP side.
  static constexpr std::array<std::string_view, 16> kRejectReasons = {
      "queue_full",     "admission_full",  "context_length", "loading",
      "draining",       "connections",     "header_bytes",   "body_bytes",
      "header_timeout", "body_timeout",    "idle_timeout",   "write_timeout",
      "stream_buffer",  "pipelined_bytes", "held_bodies",    "held_responses"};

  explicit RuntimeMetrics(const std::string& model);
  ~RuntimeMetrics();
  RuntimeMetrics(const RuntimeMetrics&) = delete;
  RuntimeMetrics& operator=(const RuntimeMetrics&) = delete;

  // Sets quern_model_info to 1. Call once, when the model has been loaded.
  void SetModelInfo(const std::string& architecture, const std::string& quantization,
                    const std::string& version);

  // Times in seconds.
  void ObserveStep(double seconds, int32_t sequences, int32_t tokens);
  void ObserveFirstToken(double since_submit, double queued);
  void ObserveInterToken(double gap);
  void CountFinished(FinishedAs how, double since_submit);
  void CountAdmitted(int32_t prompt_tokens);
  void CountRejected(std::string_view reason);  // one of kRejectReasons
  void CountHttpRequest(std::string_view handler, int status);

  // The text exposition format 0.0.4, gauges set from `now`. Totals in it never go down.
  std::string Render(const MetricsSnapshot& now);

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace quern
