#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "runtime/base/result.h"

namespace quern::control {

struct StatusPage {
  int status = 200;
  std::string body;
  std::string content_type = "text/plain; charset=utf-8";
};

// Serves a few GET pages over plain HTTP: /metrics, or health. Everything else is 404, other
// methods 405. Pages are made on the server's one thread, so their functions must be thread-safe
// and quick. Whoever can reach the port is not trusted: one request a connection, a header of at
// most 8 KiB within 5 s, no body, 10 s to take the page, 32 connections (beyond, the oldest is
// closed).
class StatusServer {
 public:
  using Pages = std::map<std::string, std::function<StatusPage()>>;  // by path

  // Listens on "HOST:PORT" ("0.0.0.0:8080", "[::]:8080"). Errors: kInvalidArgument for a malformed
  // address, kUnavailable when it cannot be listened on.
  static Result<std::unique_ptr<StatusServer>> Start(const std::string& address, Pages pages);
  ~StatusServer();  // stops listening; waits for pages being made

 private:
  struct Impl;
  explicit StatusServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace quern::control
