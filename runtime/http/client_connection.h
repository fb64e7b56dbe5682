#pragma once

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "runtime/http/client.h"
#include "runtime/http/lazy_timer.h"
#include "runtime/http/response_parser.h"

namespace quern::http {

// One connection of an HttpClient: requests one after the other. A read is pending at all times,
// except while its receiver holds it back: so an end is noticed at once, also of a kept connection.
// Shared by its pending operations.
class ClientConnection : public std::enable_shared_from_this<ClientConnection> {
 public:
  using Callback = std::function<void(const std::shared_ptr<ClientConnection>&)>;

  // `on_idle`: an exchange has ended, another may begin; told before the receiver is. `on_closed`:
  // none can begin any more; told if it was idle.
  ClientConnection(boost::asio::io_context& io, const Address& address, const ClientLimits& limits,
                   Callback on_idle, Callback on_closed);

  // Only while none is under way.
  std::shared_ptr<Exchange> Begin(std::shared_ptr<const OutgoingRequest> request,
                                  std::shared_ptr<ResponseReceiver> receiver);
  void Close();
  const Address& address() const { return address_; }

 private:
  class ExchangeImpl;
  void Connect();
  void Write();
  void ArmRead();
  void OnRead(const boost::system::error_code& error, size_t bytes);
  void OnEof(const boost::system::error_code& error);
  void Take(std::string_view bytes);
  void Complete();
  void Fail(ExchangeFault fault, std::string message);
  void OnTimeout();
  void WatchSilence();

  const Address address_;
  const ClientLimits limits_;
  const Callback on_idle_;
  const Callback on_closed_;
  boost::asio::ip::tcp::socket socket_;
  LazyTimer timer_;
  bool connected_ = false;
  bool closed_ = false;
  bool reading_ = false;
  std::array<char, 16 * 1024> piece_;

  // The exchange under way.
  uint64_t number_ = 0;
  std::shared_ptr<const OutgoingRequest> request_;
  std::shared_ptr<ResponseReceiver> receiver_;  // null: none is under way
  std::optional<ResponseParser> parser_;
  bool kept_ = false;
  bool written_ = false;
  bool answer_begun_ = false;
  bool paused_ = false;
};

}  // namespace quern::http
