// Reading side of a session: bytes -> parser -> Request -> router.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "runtime/http/session.h"
#include "runtime/http/session_responder.h"

namespace quern::http {
namespace net = boost::asio;
using boost::system::error_code;

namespace {

// What a client may still send, to be thrown away, before it is cut off.
constexpr size_t kMaxDiscardedBytes = 64 * 1024 * 1024;

}  // namespace

void Session::ArmRead() {
  if (read_pending_ || end_seen_ || phase_ == Phase::kClosed) return;
  if (!discarding_ && reader_.buffered() >= context_->limits.max_pipelined_bytes) {
    // The client is there, it takes its answer: TCP holds back what it sends ahead.
    if (phase_ == Phase::kFlushing) return;
    if (phase_ == Phase::kHandling) StopReadingAhead();
  }
  read_pending_ = true;
  socket_.async_read_some(net::buffer(read_bytes_),
                          [self = shared_from_this()](const error_code& error, size_t bytes) {
                            self->OnRead(error, bytes);
                          });
}

// Only a read tells that a client has gone, so reading goes on; what comes is thrown away, and the
// answer under way is the last one. (No client that is meant well sends so far ahead.)
void Session::StopReadingAhead() {
  MetLimit(HttpLimit::kPipelinedBytes);
  keep_alive_ = false;
  reader_.Discard();
  discarding_ = true;
}

void Session::OnRead(const error_code& error, size_t bytes) {
  read_pending_ = false;
  if (phase_ == Phase::kClosed) return;
  if (error) return OnEnd();
  if (discarding_) {
    discarded_bytes_ += bytes;
    if (discarded_bytes_ > kMaxDiscardedBytes) return Close();
    return ArmRead();
  }
  reader_.Append({read_bytes_.data(), bytes});
  if (phase_ == Phase::kHandling || phase_ == Phase::kFlushing) return ArmRead();
  Consume();
}

void Session::OnEnd() {
  end_seen_ = true;
  if (phase_ == Phase::kFlushing) return;  // the answer may still reach a client that half-closed
  Close();
}

void Session::NextRequest() {
  reader_.Next();
  phase_ = Phase::kIdle;
  SetIdleTimer();
  if (reader_.buffered() > 0) {
    Consume();  // not recursive: reached only from the completion of a write
  } else {
    ArmRead();
  }
}

void Session::SetIdleTimer() {
  const auto& limits = context_->limits;
  const bool draining = context_->draining.load();
  read_timer_.Set(
      draining ? std::min(limits.drain_idle_timeout, limits.idle_timeout) : limits.idle_timeout,
      shared_from_this());
}

void Session::Consume() {
  if (phase_ == Phase::kIdle) {
    phase_ = Phase::kHeader;
    read_timer_.Set(context_->limits.header_timeout, shared_from_this());
  }
  auto event = reader_.Read();
  if (auto* received = std::get_if<ReceivedRequest>(&event)) return Dispatch(std::move(*received));
  if (const auto* fault = std::get_if<Unreadable>(&event)) {
    if (fault->limit) MetLimit(*fault->limit);
    return Refuse(fault->status, fault->message, fault->headers);
  }
  CountBody(reader_.body_bytes());
  if (counted_body_bytes_ > context_->limits.small_bytes &&
      context_->held_body_bytes.load() > context_->limits.max_held_body_bytes) {
    MetLimit(HttpLimit::kHeldBodies);
    return Refuse(503, "too many large requests are arriving at once; try again later",
                  {{"Retry-After", "1"}});
  }
  if (const auto* header = std::get_if<RequestReader::HeaderDone>(&event)) return OnHeader(*header);
  ArmRead();
}

// The header is complete, the body is still to come.
void Session::OnHeader(const RequestReader::HeaderDone& header) {
  if (context_->router->guarded()) {
    const Request head = reader_.Head();
    if (const auto refusal = context_->router->AskGuard(head)) {
      return RefuseWith(context_->router->Find(head.method, head.path).name, *refusal);
    }
  }
  phase_ = Phase::kBody;
  read_timer_.Set(context_->limits.body_timeout, shared_from_this());
  if (header.expects_continue) Queue("HTTP/1.1 100 Continue\r\n\r\n");
  ArmRead();
}

void Session::OnReadTimeout() {
  const auto& limits = context_->limits;
  switch (phase_) {
    case Phase::kIdle:
      if (!context_->draining.load()) MetLimit(HttpLimit::kIdleTime);
      return Close();
    case Phase::kHeader:
      MetLimit(HttpLimit::kHeaderTime);
      return Refuse(408, fmt::format("the request's header did not arrive within {} s",
                                     limits.header_timeout.count() / 1000.0));
    case Phase::kBody:
      MetLimit(HttpLimit::kBodyTime);
      return Refuse(408, fmt::format("the request's body did not arrive within {} s",
                                     limits.body_timeout.count() / 1000.0));
    case Phase::kLinger:
      return Close();
    case Phase::kHandling:
    case Phase::kFlushing:
    case Phase::kClosed:
      return;
  }
}

// Answers a request that was not read to its end; the connection cannot be used further.
void Session::Refuse(int status, std::string_view message, Headers headers) {
  Response response;
  response.status = status;
  response.headers = std::move(headers);
  response.body = context_->router->ErrorJson(status, message);
  RefuseWith("none", response);
}

void Session::RefuseWith(std::string_view handler, const Response& response) {
  phase_ = Phase::kHandling;
  reader_.Discard();  // and the part of the body that has come
  CountBody(0);
  handler_name_ = std::string(handler);
  head_only_ = false;
  keep_alive_ = false;
  read_timer_.Clear();
  Send(response);
}

void Session::CountBody(size_t bytes) {
  context_->held_body_bytes += bytes - counted_body_bytes_;  // wraps, and so also subtracts
  counted_body_bytes_ = bytes;
}

void Session::Dispatch(ReceivedRequest received) {
  phase_ = Phase::kHandling;
  waiting_since_.store(kNotWaiting);
  read_timer_.Clear();
  CountBody(0);  // the handler's from here on
  Request& request = received.request;
  request.remote_address = remote_address_;
  head_only_ = request.method == "HEAD";
  http10_ = received.http10;
  keep_alive_ = received.keep_alive;

  auto match = context_->router->Find(request.method, request.path);
  handler_name_ = std::string(match.name);
  ArmRead();
  if (const auto refusal = context_->router->AskGuard(request)) return Send(*refusal);
  if (!match.handler) {
    Send(match.response);
    return;
  }
  request.path_parameter = std::move(match.path_parameter);
  const auto responder = std::make_shared<ResponderImpl>(shared_from_this(), request_number_);
  try {
    (*match.handler)(std::move(request), responder);
  } catch (const std::exception& error) {  // no exception may take the I/O thread with it
    spdlog::error("handler {} threw: {}", handler_name_, error.what());
  }
}

}  // namespace quern::http
