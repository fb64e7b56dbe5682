#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/http/loop.h"
#include "runtime/http/message.h"
#include "runtime/http/response_parser.h"

namespace quern::http {

struct ClientLimits {
  std::chrono::milliseconds connect_timeout{2'000};
  std::chrono::milliseconds silence_timeout{600'000};  // without a byte of an answer that is wanted
  std::chrono::milliseconds idle_timeout{30'000};      // a kept connection, before it is closed
  size_t max_idle = 64;                                // kept connections to one address
};

// A request as it goes out: twice, where it must.
struct OutgoingRequest {
  std::string head;  // RequestHead's
  std::string body;
  bool is_head = false;  // the method is HEAD
};

enum class ExchangeFault {
  kConnect,     // no connection: nothing was sent
  kUnanswered,  // the connection ended before a byte of the answer came
  kTimeout,     // silence_timeout
  kBroken,      // the answer had begun and did not end, or is no HTTP
};

struct ExchangeError {
  ExchangeFault fault = ExchangeFault::kConnect;
  bool kept_connection = false;  // it had been used before: the other side may just have closed it
  bool answer_begun = false;     // a byte of it has come
  std::string message;
};

// Told what comes of a request: OnHead, OnBody as often as bytes come, OnEnd once. All on the loop,
// and never within Begin, except OnSending. Nothing comes after OnEnd or Cancel.
class ResponseReceiver {
 public:
  virtual ~ResponseReceiver() = default;
  // The request goes to the connection now.
  virtual void OnSending() {}
  virtual void OnHead(const ReceivedHead& head) = 0;
  // False: no more is read until Resume, and TCP holds the other side back. (What had been read
  // with these bytes still comes: less than 16 KiB.)
  virtual bool OnBody(std::string_view bytes) = 0;
  virtual void OnEnd(std::optional<ExchangeError> error) = 0;
};

// One request under way.
class Exchange {
 public:
  virtual ~Exchange() = default;  // does not cancel
  // Closes the connection at once, which tells the other side. Nothing once it has ended.
  virtual void Cancel() = 0;
  virtual void Resume() = 0;
};

// An HTTP/1.1 client over plain TCP, on a loop of one thread, that keeps connections and uses them
// again. A request takes the connection that was used last, or a new one: none waits for another.
// Never sends a request twice: whoever wants that looks at the ExchangeError.
class HttpClient {
 public:
  HttpClient(boost::asio::io_context& io, const ClientLimits& limits);
  ~HttpClient();  // closes kept connections; those under way end when they are cancelled or done
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  std::shared_ptr<Exchange> Begin(const Address& address,
                                  std::shared_ptr<const OutgoingRequest> request,
                                  std::shared_ptr<ResponseReceiver> receiver);
  // Closes the connections to it that are kept: it is not there any more.
  void Forget(const Address& address);

 private:
  struct Pool;
  std::shared_ptr<Pool> pool_;
};

}  // namespace quern::http
