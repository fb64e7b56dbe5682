#pragma once

#include <functional>
#include <memory>

#include "runtime/gateway/config.h"
#include "runtime/http/client.h"
#include "runtime/metrics/gateway_metrics.h"

namespace quern::gateway {

// Wakes the endpoint: POSTs to the wake URL as soon as a request waits, and again while any does:
// after a failure with a backoff from 0.25 s to 5 s, after a success every 10 s, as whoever took it
// may have forgotten. On the loop's thread.
class Waker {
 public:
  // `waits`: whether a request waits. The references outlive this.
  Waker(boost::asio::io_context& io, const GatewayConfig& config, http::HttpClient& client,
        GatewayMetrics& metrics, std::function<bool()> waits);
  ~Waker();

  // A request has begun to wait. `first`: none did before it, so what earlier calls did for others
  // is of no account.
  void Wake(bool first);

 private:
  class Call;
  void Send();
  void OnAnswer(bool succeeded, const std::string& what);

  boost::asio::io_context& io_;
  const WakeTarget& target_;
  http::HttpClient& client_;
  GatewayMetrics& metrics_;
  const std::function<bool()> waits_;
  http::Timer timer_;     // of the next call
  http::Timer patience_;  // with the one under way
  std::shared_ptr<Call> call_;
  bool scheduled_ = false;
  int failures_ = 0;  // in a row
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace quern::gateway
