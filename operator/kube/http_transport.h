#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "operator/kube/config.h"
#include "runtime/base/clock.h"
#include "runtime/base/result.h"

namespace quern::control::kube {

struct HttpRequest {
  std::string method;
  std::string path;  // absolute and encoded, with its query
  std::string body;  // "" for none
  std::string content_type;
  std::string token;  // bearer; "" for none
};

// The limits of one exchange.
struct HttpTiming {
  std::optional<SteadyTime> deadline;      // of the whole exchange
  std::chrono::milliseconds idle{10'000};  // without any byte, also while connecting
};

struct HttpHead {
  int status = 0;
  std::string retry_after;  // "" where the header is missing
};

struct HttpResponse {
  HttpHead head;
  std::string body;
};

// HTTP/1.1 with keep-alive and verified TLS, over cpprestsdk, whose headers stay out of here: they
// take half a minute to compile. Thread-safe; exchanges run on the calling thread.
class HttpTransport {
 public:
  // Called on the calling thread with each piece of the body (once with an empty one when the head
  // has come). Returns whether to go on; false ends the exchange with success.
  using OnBytes = std::function<Result<bool>(const HttpHead&, std::string_view)>;

  virtual ~HttpTransport() = default;
  // Until the body has ended, `on_bytes` wants no more, or `stop` is asked for: true for the first,
  // false for the others. At most a fixed amount is buffered; a slow `on_bytes` slows the server
  // down. Errors: kDeadlineExceeded (deadline, idle), kUnavailable (connect, TLS, reset, a body cut
  // short), and those of `on_bytes`.
  virtual Result<bool> Exchange(const HttpRequest& request, const HttpTiming& timing,
                                const OnBytes& on_bytes, std::stop_token stop) = 0;
};

// The whole body, of at most `max_body_bytes` (beyond: kResourceExhausted). Stopped: kCancelled.
Result<HttpResponse> Send(HttpTransport& transport, const HttpRequest& request,
                          const HttpTiming& timing, size_t max_body_bytes, std::stop_token stop);

// Errors: kInvalidArgument, for a configuration that CheckConfig refuses too; kInternal, where the
// program has used cpprestsdk before.
Result<std::unique_ptr<HttpTransport>> MakeHttpTransport(const ClientConfig& config,
                                                         const std::string& user_agent);

}  // namespace quern::control::kube
