#include "runtime/gateway/gateway.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/gateway/relay.h"

namespace quern::gateway {
namespace {

GatewayError ShuttingDown() {
  return {503, "draining", "the gateway is shutting down; send the request again", 1};
}

http::Response Plain(int status, std::string text) {
  http::Response response;
  response.status = status;
  response.content_type = "text/plain; charset=utf-8";
  response.body = std::move(text);
  return response;
}

}  // namespace

Gateway::Gateway(boost::asio::io_context& io, GatewayConfig config, GatewayMetrics& metrics)
    : io_(io),
      config_(std::move(config)),
      metrics_(metrics),
      client_(io, config_.client),
      replicas_(io, config_, client_, metrics, [this] { OnReady(); }),
      room_(config_.waiting),
      waker_(io, config_, client_, metrics, [this] { return room_.size() > 0; }),
      expiry_(io) {
  metrics_.SetTokensPerByte(estimator_.tokens_per_byte());
}

Gateway::~Gateway() {
  while (!relays_.empty()) {
    const auto relay = relays_.begin()->second;
    relay->Drop();
  }
}

void Gateway::Start() { replicas_.Start(); }

http::Router Gateway::PublicRouter() {
  http::Router router(HttpErrorJson);
  const auto live = [](const http::Request&, const http::ResponderPtr& responder) {
    responder->Send(Plain(200, "ok\n"));
  };
  const auto ready = [this](const http::Request&, const http::ResponderPtr& responder) {
    responder->Send(draining_ ? Plain(503, "draining\n") : Plain(200, "ready\n"));
  };
  // The gateway's own, so that a load balancer that asks wakes nobody.
  router.Add("GET", "/health", "health", live);
  router.Add("GET", "/health/live", "health", live);
  router.Add("GET", "/health/ready", "health", ready);
  router.SetFallback("relay", [this](http::Request request, const http::ResponderPtr& responder) {
    Take(std::move(request), responder);
  });
  return router;
}

http::Router Gateway::AdminRouter() {
  http::Router router(HttpErrorJson);
  router.Add("GET", "/health/live", "health",
             [](const http::Request&, const http::ResponderPtr& responder) {
               responder->Send(Plain(200, "ok\n"));
             });
  router.Add("GET", "/health/ready", "health",
             [this](const http::Request&, const http::ResponderPtr& responder) {
               responder->Send(draining_ ? Plain(503, "draining\n") : Plain(200, "ready\n"));
             });
  router.Add("GET", "/metrics", "metrics",
             [this](const http::Request&, const http::ResponderPtr& responder) {
               http::Response response = Plain(200, metrics_.Text());
               response.content_type = "text/plain; version=0.0.4; charset=utf-8";
               responder->Send(std::move(response));
             });
  return router;
}

void Gateway::Take(http::Request request, const http::ResponderPtr& responder) {
  if (request.method == "CONNECT" || request.method == "TRACE") {
    return Refuse(responder,
                  {405, "method_not_allowed", fmt::format("{} is not passed on", request.method)},
                  "method");
  }
  if (!request.path.starts_with('/')) {
    return Refuse(
        responder,
        {400, "invalid_request", "the request's target must be a path, which begins with '/'"},
        "target");
  }
  if (ended_) return Refuse(responder, ShuttingDown(), "draining");
  const size_t bytes = request.body.size();
  if (bytes > 0 && held_bytes_ + bytes > config_.max_held_bytes) {
    return Refuse(responder,
                  {503, "overloaded", "too many large requests are under way; try again later", 1},
                  "held_bytes");
  }
  metrics_.CountArrived(bytes, estimator_.Estimate(bytes));
  std::string body = std::move(request.body);
  const uint64_t number = ++arrivals_;
  const auto relay = std::make_shared<Relay>(*this, number, request, std::move(body), responder);
  relays_.emplace(number, relay);
  relay->Start();
}

void Gateway::Refuse(const http::ResponderPtr& responder, const GatewayError& error,
                     const char* reason) {
  metrics_.CountRefused(reason);
  responder->Send(ToResponse(error));
}

void Gateway::Route(Relay& relay) {
  if (const auto address = replicas_.set().Pick(relay.tried())) return relay.Send(*address);
  Wait(relay);
}

void Gateway::Wait(Relay& relay) {
  const bool first = room_.size() == 0;
  const auto refusal =
      room_.Enter(relay.number(), relay.body_bytes(), relay.arrived(), relay.was_let_in());
  if (refusal) {
    const bool requests = *refusal == WaitingRoom::Refusal::kRequests;
    metrics_.CountRefused(requests ? "waiting_requests" : "waiting_bytes");
    return relay.Fail(
        {429, "waiting_room_full",
         requests ? fmt::format("no replica is ready, and the limit of {} waiting requests is "
                                "reached; try again later",
                                config_.waiting.max_requests)
                  : fmt::format("no replica is ready, and waiting requests may have {} bytes "
                                "together; try again later",
                                config_.waiting.max_bytes),
         5});
  }
  relay.BeginWaiting();
  TellWaiting();
  ArmExpiry();
  waker_.Wake(first);
}

void Gateway::OnReady() {
  while (replicas_.set().HasReady()) {
    const auto number = room_.TakeFirst();
    if (!number) break;
    Relay& relay = *relays_.at(*number);
    relay.Send(*replicas_.set().Pick(relay.tried()));
  }
  TellWaiting();
  ArmExpiry();
}

void Gateway::Expire() {
  for (const uint64_t number : room_.TakeExpired(RealClock().Now())) {
    metrics_.CountRefused("max_wait");
    relays_.at(number)->Fail(
        {503, "no_replica",
         fmt::format("no replica became ready within {:.1f} s; try again later",
                     Seconds(config_.waiting.max_wait).count()),
         10});
  }
  TellWaiting();
  ArmExpiry();
}

void Gateway::ArmExpiry() {
  const auto next = room_.NextExpiry();
  if (!next) return expiry_.Cancel();
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - RealClock().Now());
  expiry_.Set(std::max(left, std::chrono::milliseconds(0)), [this] { Expire(); });
}

void Gateway::TellWaiting() {
  metrics_.SetWaiting(room_.size(), room_.bytes());
  replicas_.SetHaste(room_.size() > 0);
}

void Gateway::Remove(uint64_t number) {
  room_.Leave(number);
  TellWaiting();
  relays_.erase(number);
  if (draining_ && relays_.empty() && idle_) idle_();
}

void Gateway::BeginDrain(std::function<void()> idle) {
  http::PostTo(io_, [this, idle = std::move(idle)] {
    draining_ = true;
    idle_ = idle;
    spdlog::info("draining: {} requests at replicas, {} waiting", replicas_.set().in_flight(),
                 room_.size());
    if (relays_.empty()) idle_();
  });
}

void Gateway::EndAll() {
  http::PostTo(io_, [this] {
    ended_ = true;
    std::vector<std::shared_ptr<Relay>> all;
    for (const auto& [number, relay] : relays_) all.push_back(relay);
    for (const auto& relay : all) {
      metrics_.CountRefused("draining");
      relay->Fail(ShuttingDown());
    }
  });
}

}  // namespace quern::gateway
