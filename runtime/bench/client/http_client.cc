// The only file here that knows Boost: Asio for the connections, Beast's parser for what comes.
// (Its streams are not used: each of their operations is a template that takes long to compile.)
#include "runtime/bench/client/http_client.h"

#include <openssl/ssl.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <csignal>
#include <limits>
#include <optional>
#include <unordered_set>
#include <vector>

namespace quern::bench {
namespace {

namespace net = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using net::ip::tcp;

constexpr size_t kReadBytes = size_t{64} << 10;
constexpr uint32_t kMaxHeaderBytes = 64 << 10;

// Beast's parser, that hands everything on as it comes.
class ResponseParser : public http::basic_parser<false> {
 public:
  explicit ResponseParser(ResponseHandler& handler) : handler_(handler) {
    eager(true);
    // An answer streams for as long as it likes; handlers set limits. (boost::none is no limit only
    // for chunked bodies, in Boost 1.74.)
    body_limit(std::numeric_limits<uint64_t>::max());
    header_limit(kMaxHeaderBytes);
  }
  // What OnBody said, where that was an error.
  const Status& refused() const { return refused_; }

 private:
  using View = boost::beast::string_view;

  void on_request_impl(http::verb, View, View, int, error_code& error) override { error = {}; }
  void on_response_impl(int status, View, int, error_code& error) override {
    status_ = status;
    error = {};
  }
  void on_field_impl(http::field name, View, View value, error_code& error) override {
    if (name == http::field::server) server_.assign(value.data(), value.size());
    error = {};
  }
  void on_header_impl(error_code& error) override {
    handler_.OnHead(status_, server_);
    error = {};
  }
  void on_body_init_impl(const boost::optional<uint64_t>&, error_code& error) override {
    error = {};
  }
  size_t on_body_impl(View body, error_code& error) override { return Body(body, error); }
  void on_chunk_header_impl(uint64_t, View, error_code& error) override { error = {}; }
  size_t on_chunk_body_impl(uint64_t, View body, error_code& error) override {
    return Body(body, error);
  }
  void on_finish_impl(error_code& error) override { error = {}; }

  size_t Body(View body, error_code& error) {
    refused_ = handler_.OnBody({body.data(), body.size()});
    error = refused_.ok() ? error_code() : net::error::operation_aborted;
    return body.size();
  }

  ResponseHandler& handler_;
  int status_ = 0;
  std::string server_;
  Status refused_;
};

Status ConnectionBroke(const error_code& error) {
  if (error == net::error::eof || error == net::ssl::error::stream_truncated) {
    return MakeError(ErrorCode::kDataLoss, "connection closed before the answer's end");
  }
  if (error == net::error::connection_reset || error == net::error::broken_pipe) {
    return MakeError(ErrorCode::kDataLoss, "connection reset");
  }
  return MakeError(ErrorCode::kDataLoss, "connection broke: {}", error.message());
}

// What all connections of a client have in common.
struct Shared {
  explicit Shared(BaseUrl url_, ClientOptions options_)
      : url(std::move(url_)), options(std::move(options_)) {}

  const BaseUrl url;
  const ClientOptions options;
  net::io_context io{1};
  std::vector<tcp::endpoint> endpoints;
  size_t working = 0;  // the endpoint that answered last
  std::optional<net::ssl::context> tls;
};

// One request on its way: over one connection or, where a kept one was closed, over two.
struct Exchange {
  std::string text;  // as it is sent
  std::shared_ptr<ResponseHandler> handler;
  SteadyTime deadline;
};

// One TCP connection, with TLS over it where the URL says so. Shared by its pending operations: it
// lives as long as one is pending or the client keeps it.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // Told of the end of each exchange. `again`: the request has not reached the server; it may go
  // over a new connection. `reusable`: another one may be begun.
  using OnIdle = std::function<void(const std::shared_ptr<Connection>&, Exchange, Status,
                                    bool again, bool reusable)>;

  Connection(Shared& shared, OnIdle on_idle)
      : shared_(shared), on_idle_(std::move(on_idle)), socket_(shared.io), timer_(shared.io) {
    if (shared_.tls) tls_.emplace(socket_, *shared_.tls);
  }

  // Not before the last one ended.
  void Begin(Exchange exchange) {
    exchange_ = std::move(exchange);
    parser_.emplace(*exchange_->handler);
    got_bytes_ = false;
    buffer_.clear();
    Watch(exchange_->deadline, "timeout");
    if (used_) return Write();
    SteadyTime until = RealClock().Now() + shared_.options.connect_timeout;
    if (until < exchange_->deadline) Watch(until, "connect timeout");
    Connect(0);
  }
  void Cancel() { Finish(MakeError(ErrorCode::kCancelled, "cancelled")); }

 private:
  void Connect(size_t tried);
  void Handshake();
  void Write();
  void Read();
  void OnRead(const error_code& error, size_t bytes);
  void Parse(bool at_end);
  void Watch(SteadyTime until, const char* what);
  void Finish(Status status, bool again = false, bool reusable = false);
  // Whether operations that complete now belong to something that is over.
  bool Over() const { return !exchange_.has_value(); }

  Shared& shared_;
  const OnIdle on_idle_;
  tcp::socket socket_;
  std::optional<net::ssl::stream<tcp::socket&>> tls_;
  net::steady_timer timer_;
  uint64_t watch_ = 0;  // a timer's handler of an earlier watch is of no account
  std::optional<Exchange> exchange_;
  std::optional<ResponseParser> parser_;
  std::array<char, kReadBytes> piece_;
  std::string buffer_;  // read and not parsed
  bool used_ = false;   // an exchange has ended well before
  bool got_bytes_ = false;
  bool writing_ = false;
};

void Connection::Watch(SteadyTime until, const char* what) {
  timer_.expires_at(until);
  timer_.async_wait([self = shared_from_this(), watch = ++watch_, what](const error_code& error) {
    if (error || watch != self->watch_ || self->Over()) return;
    self->Finish(MakeError(ErrorCode::kDeadlineExceeded, "{}", what));
  });
}

void Connection::Connect(size_t tried) {
  const size_t count = shared_.endpoints.size();
  const size_t at = (shared_.working + tried) % count;
  error_code ignored;
  socket_.close(ignored);
  socket_.async_connect(shared_.endpoints[at],
                        [self = shared_from_this(), tried, at, count](const error_code& error) {
                          if (self->Over()) return;
                          if (error) {
                            if (tried + 1 < count) return self->Connect(tried + 1);
                            return self->Finish(MakeError(ErrorCode::kUnavailable,
                                                          "cannot connect: {}", error.message()));
                          }
                          self->shared_.working = at;
                          error_code ignored;
                          self->socket_.set_option(tcp::no_delay(true), ignored);
                          self->tls_ ? self->Handshake() : self->Write();
                        });
}

void Connection::Handshake() {
  const std::string& host = shared_.url.host;
  SSL_set_tlsext_host_name(tls_->native_handle(), host.c_str());
  if (shared_.options.verify) tls_->set_verify_callback(net::ssl::host_name_verification(host));
  tls_->async_handshake(
      net::ssl::stream_base::client, [self = shared_from_this()](const error_code& error) {
        if (self->Over()) return;
        if (!error) return self->Write();
        self->Finish(MakeError(ErrorCode::kUnavailable, "no TLS connection: {}", error.message()));
      });
}

void Connection::Write() {
  Watch(exchange_->deadline, "timeout");
  writing_ = true;
  const auto done = [self = shared_from_this()](const error_code& error, size_t) {
    self->writing_ = false;
    // A server may answer, and close, without having read all: what came is read all the same.
    if (!self->Over() && error && !self->got_bytes_ && self->used_) {
      self->Finish(ConnectionBroke(error), /*again=*/true);
    }
  };
  const auto bytes = net::buffer(exchange_->text);
  tls_ ? net::async_write(*tls_, bytes, done) : net::async_write(socket_, bytes, done);
  Read();
}

void Connection::Read() {
  const auto done = [self = shared_from_this()](const error_code& error, size_t bytes) {
    self->OnRead(error, bytes);
  };
  const auto room = net::buffer(piece_);
  tls_ ? tls_->async_read_some(room, done) : socket_.async_read_some(room, done);
}

void Connection::OnRead(const error_code& error, size_t bytes) {
  if (Over()) return;
  if (!error) {
    got_bytes_ = true;
    buffer_.append(piece_.data(), bytes);
    return Parse(/*at_end=*/false);
  }
  const bool at_end = error == net::error::eof || error == net::ssl::error::stream_truncated;
  if (at_end && got_bytes_) return Parse(/*at_end=*/true);
  Finish(ConnectionBroke(error), /*again=*/used_ && !got_bytes_);
}

void Connection::Parse(bool at_end) {
  // The handler may cancel everything, this too.
  const auto self = shared_from_this();
  error_code error;
  while (!buffer_.empty() && !parser_->is_done() && !error) {
    const size_t taken = parser_->put(net::buffer(buffer_), error);
    if (Over()) return;
    buffer_.erase(0, taken);
  }
  if (!parser_->refused().ok()) return Finish(parser_->refused());
  if (error == http::error::need_more) error = {};
  if (at_end && !error && !parser_->is_done()) {
    if (!parser_->got_some() || !parser_->is_header_done() || !parser_->need_eof()) {
      return Finish(ConnectionBroke(net::error::eof));
    }
    parser_->put_eof(error);
  }
  if (error) {
    return Finish(
        MakeError(ErrorCode::kDataLoss, "no HTTP answer that can be read: {}", error.message()));
  }
  if (!parser_->is_done()) return Read();
  Finish({}, /*again=*/false, parser_->keep_alive() && !at_end && buffer_.empty() && !writing_);
}

void Connection::Finish(Status status, bool again, bool reusable) {
  if (Over()) return;
  Exchange exchange = std::move(*exchange_);
  exchange_.reset();
  ++watch_;
  timer_.cancel();
  used_ = reusable;
  if (!reusable) {
    error_code ignored;
    socket_.close(ignored);
  }
  on_idle_(shared_from_this(), std::move(exchange), std::move(status), again, reusable);
}

class Client : public HttpClient {
 public:
  Client(const BaseUrl& url, const ClientOptions& options)
      : shared_(url, options), signals_(shared_.io) {}
  Status Prepare();

  void Send(const HttpRequest& request, std::shared_ptr<ResponseHandler> handler) override;
  void CancelAll() override {
    const auto active = active_;  // each leaves the set
    for (const auto& connection : active) connection->Cancel();
  }
  void At(SteadyTime time, std::function<void()> f) override {
    auto timer = std::make_shared<net::steady_timer>(shared_.io, time);
    timer->async_wait([timer, f = std::move(f)](const error_code& error) {
      if (!error) f();
    });
  }
  void OnInterrupt(std::function<void()> f) override {
    error_code ignored;
    signals_.add(SIGINT, ignored);
    signals_.add(SIGTERM, ignored);
    signals_.async_wait([this, f = std::move(f)](const error_code& error, int) {
      if (error) return;
      error_code failed;
      signals_.clear(failed);  // from now on they do what they do by default
      f();
    });
  }
  void Run() override {
    const auto work = net::make_work_guard(shared_.io);
    shared_.io.restart();
    shared_.io.run();
  }
  void Stop() override { shared_.io.stop(); }

 private:
  std::string Head(const HttpRequest& request) const;
  void Begin(Exchange exchange, bool may_reuse);
  void OnIdle(const std::shared_ptr<Connection>& connection, Exchange exchange,
              const Status& status, bool again, bool reusable);

  Shared shared_;
  net::signal_set signals_;
  std::unordered_set<std::shared_ptr<Connection>> active_;
  std::vector<std::shared_ptr<Connection>> idle_;
};

Status Client::Prepare() {
  const BaseUrl& url = shared_.url;
  error_code error;
  tcp::resolver resolver(shared_.io);
  for (const auto& found : resolver.resolve(url.host, std::to_string(url.port), error)) {
    shared_.endpoints.push_back(found.endpoint());
  }
  if (error || shared_.endpoints.empty()) {
    return MakeError(ErrorCode::kNotFound, "cannot reach {}: host '{}': {}", url.Show(), url.host,
                     error.message());
  }
  if (!url.tls) return {};
  shared_.tls.emplace(net::ssl::context::tls_client);
  if (!shared_.options.verify) return {};
  shared_.tls->set_verify_mode(net::ssl::verify_peer, error);
  if (shared_.options.ca_file.empty()) {
    shared_.tls->set_default_verify_paths(error);
  } else {
    shared_.tls->load_verify_file(shared_.options.ca_file, error);
  }
  if (!error) return {};
  return MakeError(ErrorCode::kInvalidArgument, "cannot read the certificates of {}: {}",
                   shared_.options.ca_file.empty() ? "the system" : shared_.options.ca_file,
                   error.message());
}

std::string Client::Head(const HttpRequest& request) const {
  std::string head = fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: quern-bench\r\n",
                                 request.method, request.target, shared_.url.Authority());
  if (!shared_.options.api_key.empty()) {
    head += fmt::format("Authorization: Bearer {}\r\n", shared_.options.api_key);
  }
  if (request.method == "POST") {
    head += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n",
                        request.body.size());
  }
  return head + "Accept: application/json, text/event-stream\r\n\r\n";
}

void Client::Send(const HttpRequest& request, std::shared_ptr<ResponseHandler> handler) {
  Begin({Head(request) + request.body, std::move(handler),
         RealClock().Now() + shared_.options.timeout},
        /*may_reuse=*/true);
}

void Client::Begin(Exchange exchange, bool may_reuse) {
  std::shared_ptr<Connection> connection;
  if (may_reuse && !idle_.empty()) {
    connection = std::move(idle_.back());
    idle_.pop_back();
  } else {
    connection = std::make_shared<Connection>(
        shared_, [this](const std::shared_ptr<Connection>& ended, Exchange of, const Status& status,
                        bool again,
                        bool reusable) { OnIdle(ended, std::move(of), status, again, reusable); });
  }
  active_.insert(connection);
  connection->Begin(std::move(exchange));
}

void Client::OnIdle(const std::shared_ptr<Connection>& connection, Exchange exchange,
                    const Status& status, bool again, bool reusable) {
  active_.erase(connection);
  if (again) return Begin(std::move(exchange), /*may_reuse=*/false);
  if (reusable) idle_.push_back(connection);
  exchange.handler->OnEnd(status);
}

}  // namespace

Result<std::unique_ptr<HttpClient>> HttpClient::Create(const BaseUrl& url,
                                                       const ClientOptions& options) {
  try {
    auto client = std::make_unique<Client>(url, options);
    QUERN_TRY(client->Prepare());
    return Result<std::unique_ptr<HttpClient>>(std::move(client));
  } catch (const std::exception& error) {
    return MakeError(ErrorCode::kInternal, "cannot set up a client: {}", error.what());
  }
}

}  // namespace quern::bench
