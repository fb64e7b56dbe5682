#include "runtime/http/turn_away.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <string>
#include <utility>

namespace quern::http {
namespace net = boost::asio;
using boost::system::error_code;
using net::ip::tcp;

namespace {

// As much as a client in haste has sent before it reads; it is thrown away.
constexpr size_t kMaxHastyBytes = 1024 * 1024;

std::string Refusal(const SessionContext& context) {
  Response response;
  response.status = 503;
  response.headers.emplace_back("Retry-After", "1");
  response.body = context.router->ErrorJson(
      503, fmt::format("the limit of {} connections is reached; try again later",
                       context.limits.max_connections));
  return ResponseHead(response, response.body.size(), /*chunked=*/false, /*keep_alive=*/false) +
         response.body;
}

class TurnedAway : public std::enable_shared_from_this<TurnedAway> {
 public:
  TurnedAway(tcp::socket socket, std::shared_ptr<SessionContext> context)
      : socket_(std::move(socket)),
        context_(std::move(context)),
        timer_(socket_.get_executor()),
        refusal_(Refusal(*context_)) {
    context_->turned_away.fetch_add(1);
  }
  ~TurnedAway() { context_->turned_away.fetch_sub(1); }
  TurnedAway(const TurnedAway&) = delete;
  TurnedAway& operator=(const TurnedAway&) = delete;

  void Start() {
    net::post(socket_.get_executor(), [self = shared_from_this()] {
      self->timer_.expires_after(self->context_->limits.linger_timeout);
      self->timer_.async_wait([self](const error_code& cancelled) {
        error_code ignored;
        if (!cancelled) self->socket_.close(ignored);
      });
      net::async_write(self->socket_, net::buffer(self->refusal_),
                       [self](const error_code& error, size_t) {
                         if (error) return self->End();
                         error_code ignored;
                         self->socket_.shutdown(tcp::socket::shutdown_send, ignored);
                         self->Discard();
                       });
    });
  }

 private:
  void Discard() {
    socket_.async_read_some(net::buffer(bytes_),
                            [self = shared_from_this()](const error_code& error, size_t bytes) {
                              self->discarded_ += bytes;
                              if (error || self->discarded_ > kMaxHastyBytes) {
                                return self->End();
                              }
                              self->Discard();
                            });
  }
  void End() {
    error_code ignored;
    socket_.close(ignored);
    timer_.cancel();
  }

  tcp::socket socket_;
  const std::shared_ptr<SessionContext> context_;
  net::steady_timer timer_;
  const std::string refusal_;
  std::array<char, 4 * 1024> bytes_;
  size_t discarded_ = 0;
};

}  // namespace

void TurnAway(tcp::socket socket, std::shared_ptr<SessionContext> context) {
  if (context->turned_away.load() < context->limits.max_turned_away) {
    std::make_shared<TurnedAway>(std::move(socket), std::move(context))->Start();
    return;
  }
  // Best effort: a fresh socket's buffer holds the answer, and what has come is read.
  error_code ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(net::buffer(Refusal(*context)), ignored);
  socket.shutdown(tcp::socket::shutdown_send, ignored);
  std::array<char, 16 * 1024> bytes;
  socket.read_some(net::buffer(bytes), ignored);
}

}  // namespace quern::http
