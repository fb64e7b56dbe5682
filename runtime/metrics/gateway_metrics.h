#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace quern {

// The metrics of quern-gateway, named quern_gateway_*. Thread-safe.
class GatewayMetrics {
 public:
  explicit GatewayMetrics(const std::string& version);
  ~GatewayMetrics();
  GatewayMetrics(const GatewayMetrics&) = delete;
  GatewayMetrics& operator=(const GatewayMetrics&) = delete;

  void CountRequest(int code);
  void CountHttpLimit(std::string_view limit);  // of the listener
  // The demand: a request whose body has come wholly.
  void CountArrived(size_t body_bytes, double estimated_prompt_tokens);
  void SetTokensPerByte(double ratio);
  void CountUsage(int64_t prompt_tokens, int64_t generation_tokens);

  void SetInFlight(size_t requests);
  void SetWaiting(size_t requests, size_t bytes);
  // Of a request that has left the waiting room, however.
  void ObserveWaited(double seconds);
  void CountRefused(std::string_view reason);
  // From the whole request's arrival until it goes to a replica, without its waiting for one.
  void ObserveOverhead(double seconds);

  void CountUpstreamError(std::string_view reason);
  void CountRetry();
  void CountStreamError();
  void CountWake(bool succeeded);
  void SetReplicas(size_t known, size_t ready);

  // Prometheus' text format.
  std::string Text() const;

 private:
  struct Families;
  const std::unique_ptr<Families> families_;
};

}  // namespace quern
