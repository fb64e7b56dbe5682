#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/result.h"

namespace boost::asio {
class io_context;
}

// What is done on a server's loop (HttpServer::io) beside its requests, for those who do not know
// Asio. For a loop of one thread.
namespace quern::http {

// Runs `task` on the loop, soon. Any thread.
void PostTo(boost::asio::io_context& io, std::function<void()> task);

// Calls a function once, after a time. On the loop's thread alone, except its making, and its
// destruction once the loop has stopped.
class Timer {
 public:
  explicit Timer(boost::asio::io_context& io);
  ~Timer();  // cancels
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Replaces what was set before.
  void Set(std::chrono::milliseconds from_now, std::function<void()> on_expiry);
  // What was set is not called, also where its time has come already.
  void Cancel();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Where a TCP connection leads.
struct Address {
  std::string ip;  // as text, without brackets
  uint16_t port = 0;

  friend auto operator<=>(const Address&, const Address&) = default;
  // "10.0.0.7:8000", "[::1]:8000"
  std::string Show() const;
};

// Looks `host` (a name or an address) up without blocking the loop, and calls `done` on it with its
// addresses, in the resolver's order. Errors: kNotFound: there is no such name, or it has no
// address; kUnavailable: nobody could say.
void Resolve(boost::asio::io_context& io, const std::string& host, uint16_t port,
             std::function<void(Result<std::vector<Address>>)> done);

}  // namespace quern::http
