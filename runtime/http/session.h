#pragma once

#include <array>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "runtime/http/lazy_timer.h"
#include "runtime/http/limits.h"
#include "runtime/http/request_reader.h"
#include "runtime/http/router.h"
#include "runtime/http/write_buffer.h"

namespace quern::http {

// What the sessions of one listener share. The pointers outlive them.
struct SessionContext {
  const Router* router = nullptr;
  HttpLimits limits;
  HttpObserver* observer = nullptr;  // may be null
  std::atomic<bool> draining{false};
  std::atomic<int> connections{0};             // sessions that are not closed
  std::atomic<int> turned_away{0};             // beyond them, not yet closed
  std::atomic<size_t> held_body_bytes{0};      // of requests that are still arriving
  std::atomic<size_t> held_response_bytes{0};  // queued and not yet taken by the sockets
};

// One connection: requests one after the other (pipelined ones wait in the buffer), each answered
// through a Responder. A read is pending at all times while a request is being answered: that is
// how a client's going is noticed at once, however much it sent ahead. A client that half-closes
// counts as gone.
// Everything runs on the socket's strand, except Start, BeginDrain and Abort: any thread.
class Session : public std::enable_shared_from_this<Session> {
 public:
  // `socket`'s executor must be a strand. `on_closed`: called once, on the strand, when the socket
  // is.
  Session(boost::asio::ip::tcp::socket socket, std::shared_ptr<SessionContext> context,
          std::function<void(Session*)> on_closed);
  ~Session();

  void Start();
  void BeginDrain();  // closes soon if idle; the response under way is the last otherwise
  void Abort();       // closes now

  static constexpr std::chrono::steady_clock::rep kNotWaiting =
      std::numeric_limits<std::chrono::steady_clock::rep>::max();
  // When it began to wait for the next whole request (steady clock); kNotWaiting while one is being
  // answered. Any thread.
  std::chrono::steady_clock::rep waiting_since() const { return waiting_since_.load(); }
  // Closes in favour of another connection; is not waiting from here on. Any thread.
  void Replace();
  const SessionContext* context() const { return context_.get(); }

 private:
  class ResponderImpl;
  enum class Phase { kIdle, kHeader, kBody, kHandling, kFlushing, kLinger, kClosed };

  // Reading (session_read.cc)
  void ArmRead();
  void OnRead(const boost::system::error_code& error, size_t bytes);
  void OnEnd();
  void StopReadingAhead();
  void Consume();
  void OnHeader(const RequestReader::HeaderDone& header);
  void Dispatch(ReceivedRequest received);
  void NextRequest();
  void OnReadTimeout();
  void Refuse(int status, std::string_view message, Headers headers = {});
  void RefuseWith(std::string_view handler, const Response& response);
  void CountBody(size_t bytes);  // what this session holds of a body that is arriving

  // Writing (session.cc)
  void Send(const Response& response);
  void BeginStream(const Response& head);
  void WriteChunk(std::string_view bytes);
  void FinishStream();
  void Queue(std::string_view bytes);
  void SetIdleTimer();
  void FlushSome();
  void OnWritten(const boost::system::error_code& error, size_t bytes);
  bool DrainsFastEnough(size_t bytes);
  void ResponseComplete(int status);
  void AfterFlush();
  void Linger();
  void MetLimit(HttpLimit limit);
  void Close();
  // Whether `more` bytes for the client would hold too much for slow readers, over all sessions.
  bool ResponsesExceeded(size_t more) const;
  size_t UnsentBytes() const { return out_.size(); }

  boost::asio::ip::tcp::socket socket_;
  std::shared_ptr<SessionContext> context_;
  std::function<void(Session*)> on_closed_;
  std::string remote_address_;
  LazyTimer read_timer_;  // header, body, idle, linger
  LazyTimer write_timer_;

  Phase phase_ = Phase::kIdle;
  std::atomic<std::chrono::steady_clock::rep> waiting_since_{
      std::chrono::steady_clock::now().time_since_epoch().count()};
  RequestReader reader_;
  // Where the pending read puts its bytes: not into the reader, which may be at work meanwhile.
  std::array<char, 8 * 1024> read_bytes_;
  bool read_pending_ = false;
  bool end_seen_ = false;    // the client has closed its side
  bool discarding_ = false;  // what comes is thrown away
  size_t discarded_bytes_ = 0;
  size_t counted_body_bytes_ = 0;  // this session's part of context_->held_body_bytes

  // The request under way.
  uint64_t request_number_ = 0;  // a Responder of an earlier request does nothing
  std::string handler_name_ = "none";
  bool head_only_ = false;
  bool http10_ = false;
  bool keep_alive_ = true;
  bool chunked_ = false;
  bool stream_begun_ = false;
  std::optional<uint64_t> stream_left_;  // of a stream whose length was told
  int status_ = 0;
  std::function<void()> on_writable_;
  std::function<void()> on_gone_;

  WriteBuffer out_;
  bool write_pending_ = false;
  // Since when bytes have waited all the time, and how many have gone out since.
  std::optional<std::chrono::steady_clock::time_point> backlog_since_;
  size_t backlog_drained_ = 0;
};

}  // namespace quern::http
