#include "operator/metrics/status_server.h"

#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <list>
#include <thread>

namespace quern::control {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::asio::ip::tcp;
using boost::system::error_code;

constexpr size_t kMaxConnections = 32;
constexpr uint32_t kMaxHeaderBytes = 8 << 10;
constexpr std::chrono::seconds kRequestTimeout{5};    // from the connection to the whole header
constexpr std::chrono::seconds kResponseTimeout{10};  // for the client to take the whole page
constexpr std::chrono::milliseconds kAcceptPause{100};

// "HOST:PORT" with a port of 1 to 65535.
Result<tcp::endpoint> ParseAddress(boost::asio::io_context& io, const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon != std::string::npos && colon > 0 && address.size() - colon <= 6) {
    for (size_t i = colon + 1; i < address.size(); ++i) {
      if (address[i] < '0' || address[i] > '9')
        return MakeError(ErrorCode::kInvalidArgument, "'{}' has no port", address);
      port = port * 10 + (address[i] - '0');
    }
  }
  if (port < 1 || port > 65535) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "'{}' is no address to listen on; write 0.0.0.0:8080", address);
  }
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  error_code wrong;
  const auto ip = boost::asio::ip::make_address(host, wrong);
  if (!wrong) return tcp::endpoint(ip, static_cast<uint16_t>(port));
  const auto found = tcp::resolver(io).resolve(host, std::to_string(port), wrong);
  if (wrong || found.empty())
    return MakeError(ErrorCode::kUnavailable, "cannot listen on {}: {}", address, wrong.message());
  return found.begin()->endpoint();
}

// One request and its response; then the connection ends. Only the header is read, so a body costs
// nothing. Lives as long as an operation of it is under way.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, const StatusServer::Pages& pages)
      : stream_(std::move(socket)), pages_(pages) {
    parser_.header_limit(kMaxHeaderBytes);
  }

  void Start() {
    stream_.expires_after(kRequestTimeout);
    http::async_read_header(
        stream_, buffer_, parser_,
        [self = shared_from_this()](error_code error, size_t) { self->OnHeader(error); });
  }

  void Close() { stream_.close(); }

 private:
  void OnHeader(error_code error) {
    if (!error) {
      Answer(MakePage());
    } else if (error == http::error::header_limit || error == http::error::buffer_overflow) {
      Answer({431, "the header is too long\n"});
    } else if (error.category() == make_error_code(http::error::bad_method).category() &&
               error != http::error::end_of_stream && error != http::error::partial_message) {
      Answer({400, "this is no HTTP request\n"});
    }  // else it has gone, or said nothing for too long
  }

  StatusPage MakePage() {
    const auto& request = parser_.get();
    if (request.method() != http::verb::get) return {405, "only GET\n"};
    const std::string target(request.target());
    const auto page = pages_.find(target.substr(0, target.find('?')));
    if (page == pages_.end()) return {404, "no such page\n"};
    try {
      return page->second();
    } catch (const std::exception& e) {
      spdlog::error("{}: {}", page->first, e.what());
      return {500, "the page could not be made\n"};
    }
  }

  void Answer(StatusPage page) {
    response_.result(static_cast<unsigned>(page.status));
    response_.set(http::field::content_type, page.content_type);
    response_.set(http::field::connection, "close");
    if (page.status == 405) response_.set(http::field::allow, "GET");
    response_.body() = std::move(page.body);
    response_.prepare_payload();
    stream_.expires_after(kResponseTimeout);
    http::async_write(stream_, response_, [self = shared_from_this()](error_code, size_t) {
      error_code ignored;
      self->stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
      self->stream_.close();
    });
  }

  beast::tcp_stream stream_;
  const StatusServer::Pages& pages_;
  beast::flat_buffer buffer_{2 * kMaxHeaderBytes};
  http::request_parser<http::empty_body> parser_;
  http::response<http::string_body> response_;
};

}  // namespace

// Everything below runs on `thread`, but for the start and the end.
struct StatusServer::Impl {
  Pages pages;
  boost::asio::io_context io{1};
  tcp::acceptor acceptor{io};
  boost::asio::steady_timer pause{io};
  std::list<std::weak_ptr<Session>> sessions;  // the oldest first
  std::thread thread;

  void Accept() {
    acceptor.async_accept([this](error_code error, tcp::socket socket) {
      if (!acceptor.is_open()) return;
      if (error) {  // no file descriptor left, say: not again at once
        pause.expires_after(kAcceptPause);
        pause.async_wait([this](error_code) {
          if (acceptor.is_open()) Accept();
        });
        return;
      }
      sessions.remove_if([](const auto& session) { return session.expired(); });
      // The oldest makes way rather than the newest is turned away: whoever holds connections open
      // must not keep the kubelet's probes out.
      if (sessions.size() >= kMaxConnections) {
        if (const auto oldest = sessions.front().lock()) oldest->Close();
        sessions.pop_front();
      }
      try {
        const auto session = std::make_shared<Session>(std::move(socket), pages);
        sessions.push_back(session);
        session->Start();
      } catch (const std::exception& e) {  // no memory for it: the next may have more luck
        spdlog::error("status server: {}", e.what());
      }
      Accept();
    });
  }

  void Stop() {
    error_code ignored;
    acceptor.close(ignored);
    pause.cancel();
    for (const auto& session : sessions) {
      if (const auto open = session.lock()) open->Close();
    }
  }
};

StatusServer::StatusServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<StatusServer>> StatusServer::Start(const std::string& address, Pages pages) {
  try {
    auto impl = std::make_unique<Impl>();
    impl->pages = std::move(pages);
    QUERN_ASSIGN(const tcp::endpoint endpoint, ParseAddress(impl->io, address));
    impl->acceptor.open(endpoint.protocol());
    impl->acceptor.set_option(tcp::acceptor::reuse_address(true));
    impl->acceptor.bind(endpoint);
    impl->acceptor.listen();
    impl->Accept();
    impl->thread = std::thread([raw = impl.get()] {
      for (;;) {
        try {
          raw->io.run();
          return;
        } catch (const std::exception& e) {  // no memory for a session: it goes, the rest stays
          spdlog::error("status server: {}", e.what());
        }
      }
    });
    return std::unique_ptr<StatusServer>(new StatusServer(std::move(impl)));
  } catch (const std::exception& e) {
    return MakeError(ErrorCode::kUnavailable, "cannot listen on {}: {}", address, e.what());
  }
}

StatusServer::~StatusServer() {
  boost::asio::post(impl_->io, [impl = impl_.get()] { impl->Stop(); });
  impl_->thread.join();
}

}  // namespace quern::control
