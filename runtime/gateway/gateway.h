#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "runtime/gateway/config.h"
#include "runtime/gateway/errors.h"
#include "runtime/gateway/replicas.h"
#include "runtime/gateway/usage.h"
#include "runtime/gateway/waiting_room.h"
#include "runtime/gateway/waker.h"
#include "runtime/http/client.h"
#include "runtime/http/router.h"
#include "runtime/metrics/gateway_metrics.h"

namespace quern::gateway {

class Relay;

// The front door of an endpoint: takes requests, and relays each to the ready replica with the
// fewest in flight; holds them while there is none, and has the endpoint woken. All on the one
// thread of the server's loop, but for BeginDrain and EndAll.
class Gateway {
 public:
  // `metrics` outlives this. Made, and destroyed, while the loop does not run.
  Gateway(boost::asio::io_context& io, GatewayConfig config, GatewayMetrics& metrics);
  ~Gateway();
  Gateway(const Gateway&) = delete;
  Gateway& operator=(const Gateway&) = delete;

  // Before the loop runs, or on it.
  void Start();
  // Both outlived by this.
  http::Router PublicRouter();
  http::Router AdminRouter();

  // Not ready from here on; requests are still taken and answered. Calls `idle` on the loop each
  // time that no request is left. Any thread.
  void BeginDrain(std::function<void()> idle);
  // Ends every request: those that wait, or have no answer yet, with 503 and Retry-After, streams
  // with an error in them. Any thread.
  void EndAll();

 private:
  friend class Relay;  // one request; a part of this

  void Take(http::Request request, const http::ResponderPtr& responder);
  void Refuse(const http::ResponderPtr& responder, const GatewayError& error, const char* reason);
  // Relays' part.
  void Route(Relay& relay);
  void Wait(Relay& relay);
  void OnReady();
  void Expire();
  void ArmExpiry();
  void TellWaiting();
  void Remove(uint64_t number);

  boost::asio::io_context& io_;
  const GatewayConfig config_;
  GatewayMetrics& metrics_;
  http::HttpClient client_;
  Replicas replicas_;
  WaitingRoom room_;
  Waker waker_;
  TokenEstimator estimator_;
  http::Timer expiry_;
  std::map<uint64_t, std::shared_ptr<Relay>> relays_;
  uint64_t arrivals_ = 0;
  size_t held_bytes_ = 0;  // of relays' bodies
  bool draining_ = false;
  bool ended_ = false;
  std::function<void()> idle_;
};

}  // namespace quern::gateway
