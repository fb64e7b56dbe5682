#include "runtime/gateway/relay.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/gateway/headers.h"

namespace quern::gateway {
namespace {

constexpr int kMaxAttempts = 6;  // replicas that could not be connected to, for one request
constexpr size_t kMaxErrorBytes = 64 * 1024;
constexpr int kRetryAfterSeconds = 1;
// How soon a connection must end for the replica not to have taken the request.
constexpr std::chrono::seconds kAtOnce{1};

std::shared_ptr<const http::OutgoingRequest> Outgoing(const http::Request& request,
                                                      std::string body) {
  auto outgoing = std::make_shared<http::OutgoingRequest>();
  const std::string target =
      request.query.empty() ? request.path : fmt::format("{}?{}", request.path, request.query);
  outgoing->head = http::RequestHead(request.method, target, RequestFields(request), body.size());
  outgoing->body = std::move(body);
  outgoing->is_head = request.method == "HEAD";
  return outgoing;
}

std::string_view FaultName(http::ExchangeFault fault) {
  switch (fault) {
    case http::ExchangeFault::kConnect:
      return "connect";
    case http::ExchangeFault::kUnanswered:
      return "unanswered";
    case http::ExchangeFault::kTimeout:
      return "timeout";
    case http::ExchangeFault::kBroken:
      return "broken";
  }
  return "unknown";
}

}  // namespace

Relay::Relay(Gateway& gateway, uint64_t number, const http::Request& request, std::string body,
             http::ResponderPtr responder)
    : gateway_(gateway),
      number_(number),
      arrived_(RealClock().Now()),
      request_(Outgoing(request, std::move(body))),
      body_bytes_(request_->body.size()),
      responder_(std::move(responder)),
      comment_(gateway.io_) {}

void Relay::Start() {
  held_bytes_ = body_bytes();
  gateway_.held_bytes_ += held_bytes_;
  const auto weak = weak_from_this();
  responder_->SetCallbacks(
      [weak] {
        const auto self = weak.lock();
        if (self && self->exchange_) self->exchange_->Resume();
      },
      [weak] {
        if (const auto self = weak.lock()) self->Drop();
      });
  gateway_.Route(*this);
}

bool Relay::WantsStream() {
  if (!wants_stream_) wants_stream_ = AsksForStream(request_->body);
  return *wants_stream_;
}

void Relay::BeginWaiting() {
  was_let_in_ = true;
  waiting_since_ = RealClock().Now();
  if (!WantsStream()) return;
  comment_.Set(gateway_.config_.comment_interval, [this] { Comment(); });
}

void Relay::Comment() {
  const auto self = shared_from_this();
  const auto responder = responder_;  // a write may find that the client has gone
  if (!begun_) {
    http::Response head;
    head.content_type = "text/event-stream; charset=utf-8";
    head.headers = {{"Cache-Control", "no-cache"}};
    begun_ = events_ = true;
    responder->BeginStream(head);
  }
  if (responder->Writable()) responder->Write(": waiting\n\n");
  if (!responder_) return;
  comment_.Set(gateway_.config_.comment_interval, [this] { Comment(); });
}

void Relay::StopWaiting() {
  if (!waiting_since_) return;
  comment_.Cancel();
  const auto waited = RealClock().Now() - *std::exchange(waiting_since_, std::nullopt);
  waited_ += waited;
  gateway_.metrics_.ObserveWaited(Seconds(waited).count());
}

void Relay::Send(const http::Address& address) {
  StopWaiting();
  address_ = address;
  tried_.insert(address);
  ++attempts_;
  gateway_.metrics_.SetInFlight(gateway_.replicas_.set().in_flight());
  exchange_ = gateway_.client_.Begin(address, request_, shared_from_this());
}

void Relay::OnSending() {
  sent_at_ = RealClock().Now();
  if (std::exchange(overhead_told_, true)) return;
  gateway_.metrics_.ObserveOverhead(Seconds(RealClock().Now() - arrived_ - waited_).count());
}

void Relay::OnHead(const http::ReceivedHead& head) {
  // It takes nothing, as it ends or is full: another one may, or the next.
  if (head.status == 503 && !std::exchange(resent_, true)) {
    const http::Address address = *address_;
    std::exchange(exchange_, nullptr)->Cancel();
    Release();
    gateway_.replicas_.Suspect(address, "it answers 503");
    gateway_.metrics_.CountRetry();
    return gateway_.Route(*this);
  }
  ReleaseBody();
  const bool is_events = IsEventStream(head);
  if (begun_) {  // with signs of life
    collecting_ = head.status != 200 || !is_events;
    return;
  }
  head_ = ResponseHeadOf(head);
  bodiless_ = head.status == 204 || head.status == 304;
  if (bodiless_) return;
  begun_ = true;
  events_ = is_events;
  responder_->BeginStream(head_);
}

bool Relay::OnBody(std::string_view bytes) {
  if (collecting_) {
    error_body_ += bytes.substr(0, kMaxErrorBytes - std::min(error_body_.size(), kMaxErrorBytes));
    return true;
  }
  usage_.Feed(bytes);
  const std::string_view out = events_ ? hold_.Feed(bytes) : bytes;
  const auto responder = responder_;  // a write may find that the client has gone
  if (!out.empty()) responder->Write(out);
  return responder->Writable();
}

void Relay::OnEnd(std::optional<http::ExchangeError> error) {
  const auto self = shared_from_this();
  exchange_.reset();
  if (!error) return Complete();
  gateway_.metrics_.CountUpstreamError(FaultName(error->fault));
  OnFault(*error);
}

void Relay::Complete() {
  Release();
  LearnUsage();
  const auto responder = responder_;
  if (collecting_) {
    // What would have been the answer goes into the stream that stands for it.
    const auto json = nlohmann::json::parse(error_body_, nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.contains("error")) {
      gateway_.metrics_.CountStreamError();
      responder->Write(ErrorEvents(error_body_));
      responder->Finish();
      return End();
    }
    return Fail({502, "upstream_error", "the replica's answer is no stream, which was asked for"});
  }
  if (bodiless_) {
    head_.stream_length.reset();
    responder->Send(head_);
    return End();
  }
  if (!hold_.Rest().empty()) responder->Write(hold_.Rest());
  responder->Finish();
  End();
}

void Relay::LearnUsage() {
  const auto usage = usage_.Find();
  if (!usage) return;
  gateway_.metrics_.CountUsage(usage->prompt_tokens, usage->generation_tokens);
  gateway_.estimator_.Learn(body_bytes(), usage->prompt_tokens);
  gateway_.metrics_.SetTokensPerByte(gateway_.estimator_.tokens_per_byte());
}

// Whether it may be sent again: surely where nothing was sent; and where a connection that was kept
// ended at once, before a byte of the answer, as it does when the replica closes it at that moment.
// Later than that the replica had the request, which may have been what ended it.
void Relay::OnFault(const http::ExchangeError& error) {
  const http::Address address = *address_;
  Release();
  const bool kept = error.kept_connection && error.fault == http::ExchangeFault::kUnanswered &&
                    RealClock().Now() - sent_at_ < kAtOnce;
  if (kept) gateway_.client_.Forget(address);  // others are as old
  if (error.fault != http::ExchangeFault::kTimeout && !kept)
    gateway_.replicas_.Suspect(address, "a connection failed");
  const bool again =
      error.fault == http::ExchangeFault::kConnect ? attempts_ < kMaxAttempts : kept && !resent_;
  if (again) {
    resent_ = resent_ || kept;
    gateway_.metrics_.CountRetry();
    return gateway_.Route(*this);
  }
  const bool timeout = error.fault == http::ExchangeFault::kTimeout;
  Fail({timeout ? 504 : 502, timeout ? "upstream_timeout" : "upstream_error",
        fmt::format("the replica that had the request failed: {}", error.message),
        kRetryAfterSeconds});
}

void Relay::Fail(const GatewayError& error) {
  const auto self = shared_from_this();
  StopWaiting();
  if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->Cancel();
  Release();
  const auto responder = responder_;
  if (!begun_) {
    responder->Send(ToResponse(error));
    return End();
  }
  gateway_.metrics_.CountStreamError();
  if (events_ && hold_.at_boundary() && !head_.stream_length) {
    responder->Write(ErrorEvents(ToJson(error)));
    responder->Finish();
  }
  End();  // letting go of a stream that is not finished cuts it off
}

void Relay::Drop() {
  const auto self = shared_from_this();
  StopWaiting();
  if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->Cancel();
  Release();
  End();
}

void Relay::Release() {
  if (!address_) return;
  gateway_.replicas_.set().Release(*std::exchange(address_, std::nullopt));
  gateway_.metrics_.SetInFlight(gateway_.replicas_.set().in_flight());
}

void Relay::ReleaseBody() {
  request_.reset();
  gateway_.held_bytes_ -= std::exchange(held_bytes_, 0);
}

void Relay::End() {
  if (!responder_) return;
  ReleaseBody();
  responder_.reset();
  gateway_.Remove(number_);
}

}  // namespace quern::gateway
