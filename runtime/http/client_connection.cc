#include "runtime/http/client_connection.h"

#include <netinet/tcp.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/write.hpp>
#include <utility>

namespace quern::http {
namespace cnet = boost::asio;

namespace {

void SetOption(int socket, int level, int name, int value) {
  setsockopt(socket, level, name, &value, sizeof value);  // an old kernel may not know it
}

// A node that vanished sends no FIN: a peer that acknowledges nothing is given up after 25 s.
void WatchPeer(cnet::ip::tcp::socket& socket) {
  boost::system::error_code ignored;
  socket.set_option(cnet::ip::tcp::no_delay(true), ignored);
  const int handle = socket.native_handle();
  SetOption(handle, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetOption(handle, IPPROTO_TCP, TCP_KEEPIDLE, 10);
  SetOption(handle, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  SetOption(handle, IPPROTO_TCP, TCP_KEEPCNT, 3);
  SetOption(handle, IPPROTO_TCP, TCP_USER_TIMEOUT, 25'000);
}

}  // namespace

// Of one request: does nothing once that has ended.
class ClientConnection::ExchangeImpl : public Exchange {
 public:
  ExchangeImpl(std::shared_ptr<ClientConnection> connection, uint64_t number)
      : connection_(std::move(connection)), number_(number) {}

  void Cancel() override {
    if (Over()) return;
    connection_->receiver_.reset();
    connection_->Close();
  }
  void Resume() override {
    if (Over() || !std::exchange(connection_->paused_, false)) return;
    connection_->WatchSilence();
    connection_->ArmRead();
  }

 private:
  bool Over() const { return connection_->number_ != number_ || !connection_->receiver_; }
  const std::shared_ptr<ClientConnection> connection_;
  const uint64_t number_;
};

ClientConnection::ClientConnection(cnet::io_context& io, const Address& address,
                                   const ClientLimits& limits, Callback on_idle, Callback on_closed)
    : address_(address),
      limits_(limits),
      on_idle_(std::move(on_idle)),
      on_closed_(std::move(on_closed)),
      socket_(io),
      timer_(io.get_executor(), [this] { OnTimeout(); }) {}

std::shared_ptr<Exchange> ClientConnection::Begin(std::shared_ptr<const OutgoingRequest> request,
                                                  std::shared_ptr<ResponseReceiver> receiver) {
  ++number_;
  request_ = std::move(request);
  receiver_ = std::move(receiver);
  parser_.emplace(request_->is_head);
  kept_ = connected_;
  written_ = answer_begun_ = paused_ = false;
  connected_ ? Write() : Connect();
  return std::make_shared<ExchangeImpl>(shared_from_this(), number_);
}

void ClientConnection::Connect() {
  boost::system::error_code error;
  const auto ip = cnet::ip::make_address(address_.ip, error);  // Resolve's, or checked by options
  timer_.Set(limits_.connect_timeout, shared_from_this());
  socket_.async_connect(
      {ip, address_.port}, [self = shared_from_this()](const boost::system::error_code& failed) {
        if (self->closed_ || !self->receiver_) return;
        if (failed)
          return self->Fail(ExchangeFault::kConnect, "cannot connect: " + failed.message());
        self->connected_ = true;
        WatchPeer(self->socket_);
        self->Write();
      });
}

void ClientConnection::Write() {
  receiver_->OnSending();
  WatchSilence();
  const std::array<cnet::const_buffer, 2> parts = {cnet::buffer(request_->head),
                                                   cnet::buffer(request_->body)};
  // The request is kept by the handler: the exchange may end before all of it has gone out.
  cnet::async_write(socket_, parts,
                    [self = shared_from_this(), request = request_, number = number_](
                        const boost::system::error_code& error, size_t) {
                      // What went wrong is for the read to say: an answer may have come before.
                      if (!error && self->number_ == number) self->written_ = true;
                    });
  ArmRead();
}

void ClientConnection::ArmRead() {
  if (reading_ || paused_ || closed_) return;
  reading_ = true;
  socket_.async_read_some(cnet::buffer(piece_), [self = shared_from_this()](
                                                    const boost::system::error_code& error,
                                                    size_t bytes) { self->OnRead(error, bytes); });
}

void ClientConnection::OnRead(const boost::system::error_code& error, size_t bytes) {
  reading_ = false;
  if (closed_) return;
  if (!receiver_) return Close();  // kept: the other side has closed it, or says what nobody asked
  if (error) return OnEof(error);
  answer_begun_ = true;
  request_.reset();  // what is not sent yet is the write's
  WatchSilence();
  Take({piece_.data(), bytes});
}

void ClientConnection::OnEof(const boost::system::error_code& error) {
  const Status ended =
      error == cnet::error::eof && answer_begun_
          ? parser_->End()
          : MakeError(ErrorCode::kDataLoss, "the connection broke: {}", error.message());
  if (ended) return Complete();
  Fail(answer_begun_ ? ExchangeFault::kBroken : ExchangeFault::kUnanswered, ended.error().message);
}

// A receiver may cancel within each call.
void ClientConnection::Take(std::string_view bytes) {
  auto progress = parser_->Feed(bytes);
  if (!progress) return Fail(ExchangeFault::kBroken, progress.error().message);
  const auto self = shared_from_this();
  const auto receiver = receiver_;
  if (progress->head) receiver->OnHead(*progress->head);
  for (const std::string_view piece : progress->body) {
    if (!receiver_) return;
    if (!receiver->OnBody(piece)) paused_ = true;
  }
  if (!receiver_) return;
  if (progress->done) return Complete();
  if (paused_) return timer_.Clear();  // as long as it likes
  ArmRead();
}

void ClientConnection::Complete() {
  const auto self = shared_from_this();
  const auto receiver = std::exchange(receiver_, nullptr);
  paused_ = false;
  if (written_ && parser_->reusable()) {
    timer_.Set(limits_.idle_timeout, self);
    ArmRead();
    on_idle_(self);
  } else {
    Close();
  }
  receiver->OnEnd(std::nullopt);
}

void ClientConnection::Fail(ExchangeFault fault, std::string message) {
  const auto self = shared_from_this();
  const auto receiver = std::exchange(receiver_, nullptr);
  Close();
  receiver->OnEnd(ExchangeError{fault, kept_, answer_begun_, std::move(message)});
}

void ClientConnection::OnTimeout() {
  if (closed_) return;
  if (!receiver_) return Close();
  if (!connected_) {
    return Fail(ExchangeFault::kConnect,
                fmt::format("cannot connect within {} s", limits_.connect_timeout.count() / 1e3));
  }
  Fail(ExchangeFault::kTimeout,
       fmt::format("nothing came for {} s", limits_.silence_timeout.count() / 1e3));
}

void ClientConnection::WatchSilence() { timer_.Set(limits_.silence_timeout, shared_from_this()); }

void ClientConnection::Close() {
  if (std::exchange(closed_, true)) return;
  const auto self = shared_from_this();
  boost::system::error_code ignored;
  socket_.close(ignored);
  timer_.Cancel();
  on_closed_(self);
}

}  // namespace quern::http
