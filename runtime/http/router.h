#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/http/message.h"
#include "runtime/http/responder.h"

namespace quern::http {

// Answers one request through the responder, now or later. Runs on an I/O thread: must not block.
using Handler = std::function<void(Request request, ResponderPtr responder)>;

// Asked about every request as soon as its header is there, before its body is taken in: a response
// refuses the request, and ends the connection where the body has not come yet. `head` has all but
// the body, the remote address and the path's parameter. Runs on an I/O thread: must not block.
using Guard = std::function<std::optional<Response>(const Request& head)>;

// The body (JSON) of an error that this library itself answers with: 404, 405, 408, 413, 431, ...
using ErrorBody = std::function<std::string(int status, std::string_view message)>;

// {"error":{"message":...,"code":<status>}}
std::string PlainErrorBody(int status, std::string_view message);

// Finds the handler of a request. HEAD is answered by the GET handler, its body left out; OPTIONS
// with 204 and Allow; a known path with another method with 405 and Allow; anything else with 404,
// which lists the paths that there are, the likeliest first.
// Built before serving starts, immutable then.
class Router {
 public:
  explicit Router(ErrorBody error_body = PlainErrorBody) : error_body_(std::move(error_body)) {}

  // `pattern`: a path such as "/v1/models", whose last segment may be "{id...}" and stands for one
  // or more segments then. `name`: for metrics, a small fixed set.
  void Add(std::string method, std::string pattern, std::string name, Handler handler);

  // Takes every request whose path no route has, whatever its method. `name`: for metrics.
  void SetFallback(std::string name, Handler handler) {
    fallback_name_ = std::move(name);
    fallback_ = std::move(handler);
  }

  // What a 404 of this path says of it, as in "is on another port".
  void AddElsewhere(std::string path, std::string where) {
    elsewhere_.emplace_back(std::move(path), std::move(where));
  }

  void SetGuard(Guard guard) { guard_ = std::move(guard); }
  std::optional<Response> AskGuard(const Request& head) const {
    return guard_ ? guard_(head) : std::nullopt;
  }
  bool guarded() const { return guard_ != nullptr; }

  // Either `handler` is set, or `response` is the answer.
  struct Match {
    const Handler* handler = nullptr;
    std::string_view name = "none";
    std::string path_parameter;
    Response response;
  };
  Match Find(std::string_view method, std::string_view path) const;

  std::string ErrorJson(int status, std::string_view message) const {
    return error_body_(status, message);
  }

 private:
  struct Route {
    std::string method;
    std::string prefix;  // the whole path, or what precedes "{...}"
    std::string rest;    // "{...}" or empty
    std::string name;
    Handler handler;
  };
  static bool Matches(const Route& route, std::string_view path);
  std::string WhyNotFound(std::string_view path) const;

  ErrorBody error_body_;
  std::string fallback_name_;
  Handler fallback_;  // may be null
  Guard guard_;
  std::vector<Route> routes_;
  std::vector<std::pair<std::string, std::string>> elsewhere_;
};

}  // namespace quern::http
