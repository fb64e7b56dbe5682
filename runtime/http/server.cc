#include "runtime/http/server.h"

#include <spdlog/spdlog.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_set>
#include <vector>

#include "runtime/http/session.h"
#include "runtime/http/turn_away.h"

namespace quern::http {
namespace net = boost::asio;
using boost::system::error_code;
using net::ip::tcp;

namespace {

// One bound port. Accepts on its own strand.
struct Listener {
  explicit Listener(net::io_context& io)
      : acceptor(net::make_strand(io)), retry(acceptor.get_executor()) {}
  tcp::acceptor acceptor;
  net::steady_timer retry;  // after the process has run out of file descriptors
  Router router;
  std::shared_ptr<SessionContext> context = std::make_shared<SessionContext>();
  bool exhausted_logged = false;
};

}  // namespace

class HttpServer::Impl {
 public:
  explicit Impl(int io_threads) : io_(io_threads), io_threads_(io_threads) {}
  ~Impl() {
    Stop(std::chrono::milliseconds(0));
    // Handlers still queued hold sessions, whose end comes back here.
  }

  Result<uint16_t> Listen(const ListenOptions& options, Router router);
  void Start();
  void BeginDrain();
  bool Stop(std::chrono::milliseconds timeout);
  net::io_context& io() { return io_; }
  int connections() const {
    std::lock_guard lock(mutex_);
    return static_cast<int>(sessions_.size());
  }

 private:
  void Run();
  void Accept(Listener* listener);
  void OnAccepted(Listener* listener, const error_code& error, tcp::socket socket);
  void Receive(Listener* listener, tcp::socket socket);
  void Adopt(Listener* listener, tcp::socket socket);
  bool ReplaceIdle(Listener* listener);
  void CloseAcceptors();
  template <typename F>
  void ForEachSession(F&& f) {
    std::vector<std::shared_ptr<Session>> alive;
    {
      std::lock_guard lock(mutex_);
      for (Session* session : sessions_) {
        if (auto locked = session->weak_from_this().lock()) alive.push_back(std::move(locked));
      }
    }
    for (const auto& session : alive) f(*session);
  }

  mutable std::mutex mutex_;
  std::condition_variable closed_;
  std::unordered_set<Session*> sessions_;  // open ones; each leaves in its on_closed

  net::io_context io_;
  const int io_threads_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::thread> threads_;
  std::optional<net::executor_work_guard<net::io_context::executor_type>> work_;
  bool stopped_ = false;
};

Result<uint16_t> HttpServer::Impl::Listen(const ListenOptions& options, Router router) {
  error_code error;
  tcp::resolver resolver(io_);
  const auto found =
      resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
  if (error || found.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "cannot listen on host '{}': {}; use an address of this machine, 127.0.0.1 or "
                     "0.0.0.0",
                     options.host, error.message());
  }
  auto listener = std::make_unique<Listener>(io_);
  listener->router = std::move(router);
  listener->context->router = &listener->router;
  listener->context->limits = options.limits;
  listener->context->observer = options.observer;
  const tcp::endpoint endpoint = found.begin()->endpoint();
  tcp::acceptor& acceptor = listener->acceptor;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(net::socket_base::reuse_address(true), error);
  if (!error && endpoint.address().is_v6()) {
    error_code ignored;
    acceptor.set_option(net::ip::v6_only(false), ignored);
  }
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(net::socket_base::max_listen_connections, error);
  if (error) {
    return MakeError(ErrorCode::kUnavailable, "cannot listen on {}:{}: {}", options.host,
                     options.port, error.message());
  }
  const uint16_t port = acceptor.local_endpoint().port();
  listeners_.push_back(std::move(listener));
  return port;
}

void HttpServer::Impl::Start() {
  work_.emplace(io_.get_executor());
  for (const auto& listener : listeners_) {
    net::post(listener->acceptor.get_executor(), [this, l = listener.get()] { Accept(l); });
  }
  for (int i = 0; i < io_threads_; ++i) {
    threads_.emplace_back([this] { Run(); });
  }
}

// What a task throws (for want of memory, most likely) ends its request, not the process.
void HttpServer::Impl::Run() {
  while (true) {
    try {
      io_.run();
      return;
    } catch (const std::exception& error) {
      spdlog::error("a task of a connection threw: {}", error.what());
    }
  }
}

void HttpServer::Impl::Accept(Listener* listener) {
  if (!listener->acceptor.is_open()) return;
  listener->acceptor.async_accept(net::make_strand(io_),
                                  [this, listener](const error_code& error, tcp::socket socket) {
                                    OnAccepted(listener, error, std::move(socket));
                                  });
}

void HttpServer::Impl::OnAccepted(Listener* listener, const error_code& error, tcp::socket socket) {
  if (error == net::error::operation_aborted) return;
  if (error == net::error::no_descriptors ||
      error == boost::system::errc::too_many_files_open_in_system ||
      error == net::error::no_memory || error == net::error::no_buffer_space) {
    // Trying again at once would spin: the connection still waits in the kernel's queue.
    if (!std::exchange(listener->exhausted_logged, true)) {
      spdlog::error("cannot accept connections: {}; raise the limit of open files (ulimit -n)",
                    error.message());
    }
    if (listener->context->observer) {
      listener->context->observer->OnLimit(HttpLimit::kConnections);
    }
    listener->retry.expires_after(std::chrono::milliseconds(100));
    listener->retry.async_wait([this, listener](const error_code& cancelled) {
      if (!cancelled) Accept(listener);
    });
    return;
  }
  try {
    if (!error) Receive(listener, std::move(socket));
  } catch (const std::exception& fault) {  // one connection less, but not the last one
    spdlog::error("a connection could not be taken: {}", fault.what());
  }
  Accept(listener);
}

void HttpServer::Impl::Receive(Listener* listener, tcp::socket socket) {
  // Counted per port: a flood on the public one must not shut out the administrative one.
  const SessionContext& context = *listener->context;
  if (context.connections.load() < context.limits.max_connections || ReplaceIdle(listener)) {
    return Adopt(listener, std::move(socket));
  }
  if (context.observer) context.observer->OnLimit(HttpLimit::kConnections);
  TurnAway(std::move(socket), listener->context);
}

void HttpServer::Impl::Adopt(Listener* listener, tcp::socket socket) {
  const auto on_closed = [this](Session* closed) {
    std::lock_guard lock(mutex_);
    sessions_.erase(closed);
    closed_.notify_all();
  };
  const auto session = std::make_shared<Session>(std::move(socket), listener->context, on_closed);
  {
    std::lock_guard lock(mutex_);
    sessions_.insert(session.get());
  }
  session->Start();
}

// Makes room by closing what has waited longest. False if the listener does not do so, or all
// connections are being answered.
bool HttpServer::Impl::ReplaceIdle(Listener* listener) {
  if (!listener->context->limits.replace_idle) return false;
  std::shared_ptr<Session> longest;
  ForEachSession([&](Session& session) {
    if (session.context() != listener->context.get()) return;
    if (session.waiting_since() == Session::kNotWaiting) return;
    if (!longest || session.waiting_since() < longest->waiting_since()) {
      longest = session.shared_from_this();
    }
  });
  if (!longest) return false;
  longest->Replace();
  return true;
}

void HttpServer::Impl::BeginDrain() {
  for (const auto& listener : listeners_) listener->context->draining.store(true);
  ForEachSession([](Session& session) { session.BeginDrain(); });
}

void HttpServer::Impl::CloseAcceptors() {
  for (const auto& listener : listeners_) {
    net::post(listener->acceptor.get_executor(), [l = listener.get()] {
      error_code ignored;
      l->acceptor.close(ignored);
      l->retry.cancel();
    });
  }
}

bool HttpServer::Impl::Stop(std::chrono::milliseconds timeout) {
  if (std::exchange(stopped_, true)) return true;
  if (threads_.empty()) return true;
  BeginDrain();
  CloseAcceptors();
  std::unique_lock lock(mutex_);
  const auto empty = [this] { return sessions_.empty(); };
  const bool clean = closed_.wait_for(lock, timeout, empty);
  lock.unlock();
  ForEachSession([](Session& session) { session.Abort(); });
  lock.lock();
  // Aborting takes one turn of the loop; the deadline is for a handler that blocks against the
  // rules.
  closed_.wait_for(lock, std::chrono::seconds(5), empty);
  lock.unlock();
  work_.reset();
  io_.stop();
  for (auto& thread : threads_) thread.join();
  return clean;
}

ListenOptions AdminListenOptions(std::string host, uint16_t port) {
  ListenOptions options{.host = std::move(host), .port = port, .limits = {}};
  options.limits.max_connections = 64;
  options.limits.replace_idle = true;
  options.limits.header_timeout = std::chrono::seconds(5);
  options.limits.idle_timeout = std::chrono::seconds(20);
  options.limits.max_body_bytes = 64 * 1024;
  return options;
}

HttpServer::HttpServer(int io_threads) : impl_(std::make_unique<Impl>(io_threads)) {}
HttpServer::~HttpServer() = default;
Result<uint16_t> HttpServer::Listen(const ListenOptions& options, Router router) {
  return impl_->Listen(options, std::move(router));
}
void HttpServer::Start() { impl_->Start(); }
void HttpServer::BeginDrain() { impl_->BeginDrain(); }
bool HttpServer::Stop(std::chrono::milliseconds timeout) { return impl_->Stop(timeout); }
int HttpServer::connections() const { return impl_->connections(); }
net::io_context& HttpServer::io() { return impl_->io(); }

}  // namespace quern::http
