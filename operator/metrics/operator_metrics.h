#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

namespace quern::control {

// The operator's own metrics, quern_operator_*. Thread-safe.
class OperatorMetrics {
 public:
  explicit OperatorMetrics(const std::string& version);
  ~OperatorMetrics();

  // `error`: "", or ErrorCodeName of the failure.
  void Reconciled(const char* error, std::chrono::duration<double> took);
  void QueueDepth(size_t depth);
  void QueueAdded();
  void QueueRetried();
  void QueueFull();
  void QueueWaited(std::chrono::duration<double> waited);
  void Decided(const char* rule);
  // Where an endpoint stands: replicas wanted, pods there are, pods ready, and tokens per second
  // served (NaN = unknown).
  void Endpoint(const std::string& ns, const std::string& endpoint, int64_t wanted,
                int64_t replicas, int64_t ready, double tokens_per_second);
  void ForgetEndpoint(const std::string& ns, const std::string& endpoint);
  void Scraped(bool ok, std::chrono::duration<double> took);
  void Applied(const std::string& kind, const char* why);  // why: "created", "changed" or "drift"
  void EventDropped(const char* reason);                   // "too_many" or "not_sent"
  void Leader(bool leader);
  void InformerObjects(const std::string& resource, size_t objects);
  void ApiCall(const std::string& verb, const std::string& resource, int code,
               std::chrono::duration<double> took);

  // Prometheus' text format.
  std::string Text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quern::control
