#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "runtime/base/result.h"
#include "runtime/http/limits.h"
#include "runtime/http/router.h"

namespace boost::asio {
class io_context;
}

namespace quern::http {

struct ListenOptions {
  std::string host = "127.0.0.1";  // an address or a name; "::" also takes IPv4
  uint16_t port = 0;               // 0: any free one
  HttpLimits limits;
  HttpObserver* observer = nullptr;  // outlives the server; may be null
};

// Of a port for metrics and probes, which must get through whoever else holds connections open.
ListenOptions AdminListenOptions(std::string host, uint16_t port);

// An HTTP/1.1 server on one or several ports. Handlers run on its I/O threads.
//
//   HttpServer server(/*io_threads=*/1);
//   QUERN_ASSIGN(uint16_t port, server.Listen(options, std::move(router)));
//   server.Start();
//   ...
//   server.BeginDrain();             // last answers, then Connection: close
//   server.Stop(std::chrono::seconds(5));
class HttpServer {
 public:
  explicit HttpServer(int io_threads);
  ~HttpServer();  // stops at once if that has not been done
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Binds; connections are taken once Start has been called. Returns the port. Errors:
  // kInvalidArgument (no such host), kUnavailable (port in use or not permitted). Before Start
  // only.
  Result<uint16_t> Listen(const ListenOptions& options, Router router);
  void Start();

  // Idle connections are closed after drain_idle_timeout, others after the answer under way; new
  // ones are still taken, so that a client that has not heard of the draining gets an answer that
  // says so. Any thread.
  void BeginDrain();
  // Takes no more connections, waits until the open ones are closed, at most `timeout`, then closes
  // what is left and joins the threads. True if nothing had to be cut. Not on an I/O thread.
  bool Stop(std::chrono::milliseconds timeout);

  // Connections that are open now, over all ports. Any thread.
  int connections() const;

  // Where the I/O threads work: for an HttpClient, timers and look-ups beside the requests. What
  // uses it must be destroyed before the server is.
  boost::asio::io_context& io();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quern::http
