#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "runtime/base/clock.h"
#include "runtime/base/result.h"
#include "runtime/bench/url.h"

namespace quern::bench {

struct ClientOptions {
  std::chrono::milliseconds connect_timeout{10'000};
  std::chrono::milliseconds timeout{600'000};  // of a request, from Send to its end
  std::string api_key;                         // empty: none
  // Of https:
  std::string ca_file;  // empty: the system's authorities
  bool verify = true;
};

inline constexpr int kStatusOk = 200;

struct HttpRequest {
  std::string method = "POST";
  std::string target;
  std::string body;  // JSON
};

// Told what comes of a request, in this order: OnHead, OnBody as often as bytes come, OnEnd. OnEnd
// comes exactly once, also where the others did not; nothing comes after it.
class ResponseHandler {
 public:
  virtual ~ResponseHandler() = default;
  virtual void OnHead(int /*status*/, std::string_view /*server*/) {}
  // An error ends the request with it.
  virtual Status OnBody(std::string_view bytes) = 0;
  // The error's message is its kind in a few words, the same for the same kind. kUnavailable: no
  // connection; kDeadlineExceeded: a timeout; kCancelled; kDataLoss: the connection broke or what
  // came is no HTTP; else as OnBody said.
  virtual void OnEnd(const Status& status) = 0;
};

// HTTP/1.1 and a loop for what is to happen at a time, on the caller's thread: handlers run within
// Run. Connections are kept and used again; there are as many as requests at once. A request for
// which a kept one turns out to be closed goes over a new one. Not thread-safe.
class HttpClient {
 public:
  // Looks the host up, which may take as long as the system's resolver does. kNotFound where there
  // is no such host; kInvalidArgument for a CA file that cannot be read.
  static Result<std::unique_ptr<HttpClient>> Create(const BaseUrl& url,
                                                    const ClientOptions& options);
  virtual ~HttpClient() = default;  // drops what is under way: no handler is called

  virtual void Send(const HttpRequest& request, std::shared_ptr<ResponseHandler> handler) = 0;
  // Ends all requests under way with kCancelled. Within Run only.
  virtual void CancelAll() = 0;
  // Calls `f` within Run once `time` has come. It stays due when Run returns before.
  virtual void At(SteadyTime time, std::function<void()> f) = 0;
  // Calls `f` within Run at the first SIGINT or SIGTERM; a second one ends the program.
  virtual void OnInterrupt(std::function<void()> f) = 0;
  // Until Stop. May be called again.
  virtual void Run() = 0;
  virtual void Stop() = 0;
};

// An answer in one piece.
struct HttpAnswer {
  int status = 0;
  std::string server;  // header Server
  std::string body;
};

// Runs the client's loop until one request has ended. Nothing else may be under way. Errors as of
// OnEnd, and kDataLoss for a body of more than `max_bytes`.
Result<HttpAnswer> Fetch(HttpClient& client, const HttpRequest& request,
                         size_t max_bytes = size_t{16} << 20);

}  // namespace quern::bench
