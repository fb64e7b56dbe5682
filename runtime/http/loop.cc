#include "runtime/http/loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <utility>

namespace quern::http {
namespace asio = boost::asio;

void PostTo(asio::io_context& io, std::function<void()> task) { asio::post(io, std::move(task)); }

struct Timer::State {
  explicit State(asio::io_context& io) : timer(io) {}
  asio::steady_timer timer;
  uint64_t set = 0;  // counts: a handler of an earlier one does nothing
};

Timer::Timer(asio::io_context& io) : state_(std::make_shared<State>(io)) {}

Timer::~Timer() { Cancel(); }

void Timer::Set(std::chrono::milliseconds from_now, std::function<void()> on_expiry) {
  const uint64_t set = ++state_->set;
  state_->timer.expires_after(from_now);
  state_->timer.async_wait([weak = std::weak_ptr<State>(state_), set,
                            call = std::move(on_expiry)](const boost::system::error_code& error) {
    const auto state = weak.lock();
    if (error || !state || state->set != set) return;
    call();
  });
}

void Timer::Cancel() {
  ++state_->set;
  state_->timer.cancel();
}

std::string Address::Show() const {
  return ip.find(':') == std::string::npos ? fmt::format("{}:{}", ip, port)
                                           : fmt::format("[{}]:{}", ip, port);
}

void Resolve(asio::io_context& io, const std::string& host, uint16_t port,
             std::function<void(Result<std::vector<Address>>)> done) {
  using asio::ip::tcp;
  const auto resolver = std::make_shared<tcp::resolver>(io);
  resolver->async_resolve(
      host, std::to_string(port),
      [resolver, host, port, done = std::move(done)](const boost::system::error_code& error,
                                                     const tcp::resolver::results_type& found) {
        std::vector<Address> addresses;
        for (const auto& entry : found) {
          Address address{entry.endpoint().address().to_string(), port};
          if (std::find(addresses.begin(), addresses.end(), address) == addresses.end()) {
            addresses.push_back(std::move(address));
          }
        }
        if (!error && !addresses.empty()) return done(std::move(addresses));
        const bool none =
            !error || error == asio::error::host_not_found || error == asio::error::no_data;
        done(MakeError(none ? ErrorCode::kNotFound : ErrorCode::kUnavailable,
                       "cannot look up '{}': {}", host,
                       error ? error.message() : "it has no address"));
      });
}

}  // namespace quern::http
