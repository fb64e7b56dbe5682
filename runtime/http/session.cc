// Life and writing side of a session; the reading side is in session_read.cc.
#include "runtime/http/session.h"

#include <fmt/format.h>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>

#include "runtime/http/session_responder.h"

namespace quern::http {
namespace net = boost::asio;
using boost::system::error_code;

Session::Session(net::ip::tcp::socket socket, std::shared_ptr<SessionContext> context,
                 std::function<void(Session*)> on_closed)
    : socket_(std::move(socket)),
      context_(std::move(context)),
      on_closed_(std::move(on_closed)),
      read_timer_(socket_.get_executor(), [this] { OnReadTimeout(); }),
      write_timer_(socket_.get_executor(),
                   [this] {
                     MetLimit(HttpLimit::kWriteTime);
                     Close();
                   }),
      reader_(context_->limits),
      out_(context_->limits.small_bytes) {
  context_->connections.fetch_add(1);
  error_code ignored;
  const auto endpoint = socket_.remote_endpoint(ignored);
  if (!ignored) {
    remote_address_ = fmt::format("{}:{}", endpoint.address().to_string(), endpoint.port());
  }
}

Session::~Session() = default;

void Session::Start() {
  net::post(socket_.get_executor(), [self = shared_from_this()] {
    if (self->phase_ == Phase::kClosed) return;
    error_code ignored;
    // Tokens are small and each is waited for: no Nagle.
    self->socket_.set_option(net::ip::tcp::no_delay(true), ignored);
    self->NextRequest();
  });
}

void Session::BeginDrain() {
  net::post(socket_.get_executor(), [self = shared_from_this()] {
    // Not closed at once: a request may be on its way, and would be answered by a reset.
    if (self->phase_ == Phase::kIdle) self->SetIdleTimer();
  });
}

void Session::Abort() {
  net::post(socket_.get_executor(), [self = shared_from_this()] { self->Close(); });
}

void Session::Replace() {
  waiting_since_.store(kNotWaiting);
  net::post(socket_.get_executor(), [self = shared_from_this()] {
    if (self->phase_ == Phase::kHandling) return;  // a request has come after all
    self->MetLimit(HttpLimit::kConnections);
    self->Close();
  });
}

void Session::Send(const Response& response) {
  if (phase_ != Phase::kHandling || stream_begun_) return;
  if (response.body.size() > context_->limits.small_bytes &&
      ResponsesExceeded(response.body.size())) {
    MetLimit(HttpLimit::kHeldResponses);
    keep_alive_ = false;
    Response refusal;
    refusal.status = 503;
    refusal.headers.emplace_back("Retry-After", "1");
    refusal.body = context_->router->ErrorJson(
        503, "too many large answers wait for clients that read slowly; try again later");
    return Send(refusal);
  }
  keep_alive_ = keep_alive_ && !context_->draining.load();
  Queue(ResponseHead(response, response.body.size(), /*chunked=*/false, keep_alive_));
  if (!head_only_) Queue(response.body);
  ResponseComplete(response.status);
}

void Session::BeginStream(const Response& head) {
  if (phase_ != Phase::kHandling || stream_begun_) return;
  stream_begun_ = true;
  status_ = head.status;
  stream_left_ = head.stream_length;
  // HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
  chunked_ = !http10_ && !stream_left_;
  keep_alive_ = keep_alive_ && (chunked_ || stream_left_) && !context_->draining.load();
  Queue(ResponseHead(head, stream_left_, chunked_, keep_alive_));
  if (!head.body.empty()) WriteChunk(head.body);
}

void Session::WriteChunk(std::string_view bytes) {
  if (phase_ != Phase::kHandling || !stream_begun_ || bytes.empty() || head_only_) return;
  if (stream_left_) {
    if (bytes.size() > *stream_left_) return Close();  // they would be the next answer's
    *stream_left_ -= bytes.size();
  }
  if (UnsentBytes() + bytes.size() > context_->limits.max_stream_buffer) {
    MetLimit(HttpLimit::kStreamBuffer);
    Close();
    return;
  }
  if (UnsentBytes() + bytes.size() > context_->limits.small_bytes &&
      ResponsesExceeded(bytes.size())) {
    MetLimit(HttpLimit::kHeldResponses);
    Close();
    return;
  }
  if (chunked_) {
    Queue(fmt::format("{:x}\r\n", bytes.size()));
    Queue(bytes);
    Queue("\r\n");
  } else {
    Queue(bytes);
  }
}

void Session::FinishStream() {
  if (phase_ != Phase::kHandling || !stream_begun_) return;
  if (stream_left_.value_or(0) > 0 && !head_only_) return Close();  // the client waits for the rest
  if (chunked_ && !head_only_) Queue("0\r\n\r\n");
  ResponseComplete(status_);
}

bool Session::ResponsesExceeded(size_t more) const {
  return context_->held_response_bytes.load() + more > context_->limits.max_held_response_bytes;
}

void Session::Queue(std::string_view bytes) {
  if (phase_ == Phase::kClosed) return;
  out_.Append(bytes);
  context_->held_response_bytes += bytes.size();
  FlushSome();
}

void Session::FlushSome() {
  if (write_pending_ || phase_ == Phase::kClosed || UnsentBytes() == 0) return;
  write_pending_ = true;
  if (!backlog_since_) {
    backlog_since_ = std::chrono::steady_clock::now();
    backlog_drained_ = 0;
  }
  write_timer_.Set(context_->limits.write_timeout, shared_from_this());
  // Posted, so that the pieces a handler queues in one go leave in one system call.
  net::post(socket_.get_executor(), [self = shared_from_this()] {
    if (self->phase_ == Phase::kClosed) return;
    self->socket_.async_write_some(
        net::buffer(self->out_.Front()),
        [self](const error_code& error, size_t bytes) { self->OnWritten(error, bytes); });
  });
}

void Session::OnWritten(const error_code& error, size_t bytes) {
  write_pending_ = false;
  if (phase_ == Phase::kClosed) return;
  if (error) return Close();
  out_.Consume(bytes);
  context_->held_response_bytes -= bytes;
  if (UnsentBytes() > 0) {
    if (!DrainsFastEnough(bytes)) {
      MetLimit(HttpLimit::kWriteTime);
      return Close();
    }
    return FlushSome();
  }
  backlog_since_.reset();
  write_timer_.Clear();
  AfterFlush();
}

// A client that takes a byte now and then must not hold an answer for ever.
bool Session::DrainsFastEnough(size_t bytes) {
  backlog_drained_ += bytes;
  const auto now = std::chrono::steady_clock::now();
  const auto elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(now - *backlog_since_);
  if (elapsed < context_->limits.write_timeout) return true;
  const size_t wanted =
      context_->limits.min_drain_bytes_per_second * static_cast<size_t>(elapsed.count()) / 1000;
  const bool enough = backlog_drained_ >= wanted;
  backlog_since_ = now;
  backlog_drained_ = 0;
  return enough;
}

void Session::AfterFlush() {
  if (phase_ == Phase::kHandling) {
    // A copy: the callback may finish the response, which lets go of the callbacks.
    if (const auto writable = on_writable_) writable();
  } else if (phase_ == Phase::kFlushing) {
    if (keep_alive_ && !end_seen_) {
      NextRequest();  // also while draining, if the answer promised so before
    } else {
      Linger();
    }
  }
}

void Session::ResponseComplete(int status) {
  ++request_number_;  // the Responder is done
  on_writable_ = nullptr;
  on_gone_ = nullptr;
  stream_begun_ = false;
  phase_ = Phase::kFlushing;
  waiting_since_.store(std::chrono::steady_clock::now().time_since_epoch().count());
  if (context_->observer) context_->observer->OnRequest(handler_name_, status);
}

// Closing at once while the client still sends would reset the connection, and the client might
// lose the answer (RFC 9112, 9.6): so our side is closed first, and what still comes is thrown
// away.
void Session::Linger() {
  if (end_seen_) return Close();
  phase_ = Phase::kLinger;
  error_code ignored;
  socket_.shutdown(net::ip::tcp::socket::shutdown_send, ignored);
  reader_.Discard();
  discarding_ = true;
  read_timer_.Set(context_->limits.linger_timeout, shared_from_this());
  ArmRead();
}

void Session::MetLimit(HttpLimit limit) {
  if (context_->observer) context_->observer->OnLimit(limit);
}

void Session::Close() {
  if (phase_ == Phase::kClosed) return;
  const auto self = shared_from_this();  // what follows may let go of the last other owner
  const bool unanswered = phase_ == Phase::kHandling;
  phase_ = Phase::kClosed;
  ++request_number_;
  CountBody(0);
  context_->held_response_bytes -= UnsentBytes();
  error_code ignored;
  socket_.close(ignored);
  read_timer_.Cancel();
  write_timer_.Cancel();
  on_writable_ = nullptr;
  const auto gone = std::exchange(on_gone_, nullptr);
  if (gone) gone();  // before it is counted, so that who reads the count knows that it was called
  if (unanswered && context_->observer) context_->observer->OnRequest(handler_name_, 499);
  context_->connections.fetch_sub(1);
  if (on_closed_) on_closed_(this);
}

}  // namespace quern::http
