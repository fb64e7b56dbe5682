// Reading side of a session: bytes -> parser -> Request -> router.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>

#include "runtime/http/session.h"
#include "runtime/http/session_responder.h"

namespace quern::http {
namespace net = boost::asio;
namespace bhttp = boost::beast::http;
using boost::system::error_code;

namespace {

// What a refused client may still send before it is cut off.
constexpr size_t kMaxLingeredBytes = 64 * 1024 * 1024;

Headers CopyHeaders(const bhttp::fields& fields) {
  Headers headers;
  for (const auto& field : fields) {
    headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  }
  return headers;
}

}  // namespace

void Session::ArmRead() {
  if (read_pending_ || end_seen_ || phase_ == Phase::kClosed) return;
  // A client that sends ahead is read no further than this; TCP then holds it back.
  const bool reading_ahead = phase_ == Phase::kHandling || phase_ == Phase::kFlushing;
  if (reading_ahead && in_.size() >= context_->limits.max_pipelined_bytes) return;
  read_pending_ = true;
  socket_.async_read_some(net::buffer(read_bytes_),
                          [self = shared_from_this()](const error_code& error, size_t bytes) {
                            self->OnRead(error, bytes);
                          });
}

void Session::OnRead(const error_code& error, size_t bytes) {
  read_pending_ = false;
  if (phase_ == Phase::kClosed) return;
  if (error) return OnEnd();
  if (phase_ == Phase::kLinger) {
    lingered_bytes_ += bytes;
    if (lingered_bytes_ > kMaxLingeredBytes) return Close();
    return ArmRead();
  }
  in_.commit(net::buffer_copy(in_.prepare(bytes), net::buffer(read_bytes_, bytes)));
  if (phase_ == Phase::kHandling || phase_ == Phase::kFlushing) return ArmRead();
  Consume();
}

void Session::OnEnd() {
  end_seen_ = true;
  if (phase_ == Phase::kFlushing) return;  // the answer may still reach a client that half-closed
  Close();
}

void Session::NextRequest() {
  parser_.emplace();
  parser_->eager(true);
  parser_->header_limit(static_cast<std::uint32_t>(context_->limits.max_header_bytes));
  parser_->body_limit(context_->limits.max_body_bytes);
  phase_ = Phase::kIdle;
  if (context_->draining.load() && in_.size() == 0 && request_number_ > 0) return Close();
  read_timer_.Set(context_->limits.idle_timeout, shared_from_this());
  if (in_.size() > 0) {
    Consume();  // not recursive: reached only from the completion of a write
  } else {
    ArmRead();
  }
}

void Session::Consume() {
  if (phase_ == Phase::kIdle) {
    phase_ = Phase::kHeader;
    read_timer_.Set(context_->limits.header_timeout, shared_from_this());
  }
  error_code error;
  in_.consume(parser_->put(in_.data(), error));
  if (error && error != bhttp::error::need_more) return OnParseError(error);
  if (parser_->is_done()) return Dispatch();
  // The parser bounds the header and the body, but not what belongs to neither: it waits for the
  // end of a chunk's line, extensions included, however long that is.
  if (in_.size() > context_->limits.max_header_bytes) {
    return OnParseError(bhttp::error::header_limit);
  }
  CountBody(parser_->get().body().size());
  if (counted_body_bytes_ > context_->limits.small_bytes &&
      context_->held_body_bytes.load() > context_->limits.max_held_body_bytes) {
    MetLimit(HttpLimit::kHeldBodies);
    return Refuse(503, "too many large requests are arriving at once; try again later",
                  {{"Retry-After", "1"}});
  }
  if (phase_ == Phase::kHeader && parser_->is_header_done()) OnHeader();
  ArmRead();
}

// The header is complete, the body is still to come.
void Session::OnHeader() {
  phase_ = Phase::kBody;
  read_timer_.Set(context_->limits.body_timeout, shared_from_this());
  const auto& request = parser_->get();
  if (request.version() >= 11 &&
      boost::beast::iequals(request[bhttp::field::expect], "100-continue")) {
    Queue("HTTP/1.1 100 Continue\r\n\r\n");
  }
}

void Session::OnParseError(const error_code& error) {
  if (error == bhttp::error::body_limit) {
    MetLimit(HttpLimit::kBodyBytes);
    return Refuse(413, fmt::format("the request's body is larger than the limit of {} bytes",
                                   context_->limits.max_body_bytes));
  }
  if (error == bhttp::error::header_limit || error == bhttp::error::buffer_overflow) {
    MetLimit(HttpLimit::kHeaderBytes);
    return Refuse(431, fmt::format("the request's header is larger than the limit of {} bytes",
                                   context_->limits.max_header_bytes));
  }
  Refuse(400, fmt::format("this is not an HTTP request that can be read: {}", error.message()));
}

void Session::OnReadTimeout() {
  const auto& limits = context_->limits;
  switch (phase_) {
    case Phase::kIdle:
      MetLimit(HttpLimit::kIdleTime);
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
  phase_ = Phase::kHandling;
  parser_.reset();  // and the part of the body that has come
  CountBody(0);
  handler_name_ = "none";
  head_only_ = false;
  keep_alive_ = false;
  read_timer_.Clear();
  Response response;
  response.status = status;
  response.headers = std::move(headers);
  response.body = context_->router->ErrorJson(status, message);
  Send(response);
}

void Session::CountBody(size_t bytes) {
  context_->held_body_bytes += bytes - counted_body_bytes_;  // wraps, and so also subtracts
  counted_body_bytes_ = bytes;
}

void Session::Dispatch() {
  phase_ = Phase::kHandling;
  waiting_since_.store(kNotWaiting);
  read_timer_.Clear();
  auto message = parser_->release();
  CountBody(0);  // the handler's from here on
  const std::string_view target(message.target().data(), message.target().size());
  const size_t question = target.find('?');
  Request request;
  request.method = std::string(message.method_string());
  request.path = std::string(target.substr(0, question));
  if (question != std::string_view::npos) request.query = std::string(target.substr(question + 1));
  request.headers = CopyHeaders(message);
  request.body = std::move(message.body());
  request.remote_address = remote_address_;
  head_only_ = request.method == "HEAD";
  http10_ = message.version() < 11;
  keep_alive_ = message.keep_alive();

  auto match = context_->router->Find(request.method, request.path);
  handler_name_ = std::string(match.name);
  ArmRead();
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
