#include "operator/kube/http_transport.h"

#include <cpprest/astreambuf.h>
#include <cpprest/http_client.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <pplx/threadpool.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "operator/kube/url.h"

namespace quern::control::kube {
namespace {

using web::http::http_request;
using web::http::http_response;
using web::http::client::http_client;
using web::http::client::http_client_config;

constexpr size_t kBufferedBytes = 256 << 10;      // beyond this the connection is not read further
constexpr std::chrono::hours kCpprestTimeout{1};  // ours are shorter and exact
constexpr std::chrono::seconds kLingerAfterAbort{2};
// One, and a call is cancelled on it: cpprest closes a cancelled call's socket at once, in the
// thread that asks, and where another is just reading, that is a use after free. Nothing of ours
// blocks it.
constexpr int kIoThreads = 1;

// One exchange in flight: cpprest's threads write into it, the calling thread takes out of it. It
// is the stream buffer of the response's body, which holds back its "written" while the buffer is
// full. Shared by both sides, so that either may leave first.
class Inbox : public Concurrency::streams::details::streambuf_state_manager<uint8_t> {
 public:
  Inbox() : streambuf_state_manager<uint8_t>(std::ios_base::out) {}

  struct Taken {
    bool head_known = false;
    HttpHead head;
    std::string bytes;
    bool finished = false;
    std::string failure;  // "" for a body that ended well
  };

  // Waits for bytes, the head (once), the end, `stop` or `until`. Returns what has come; bytes that
  // overtook their head (both come from cpprest's threads) stay until it is here.
  Taken Take(bool head_taken, SteadyTime until, std::stop_token stop) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, stop, until, [&] {
      return finished_ || (head_known_ && (!head_taken || !bytes_.empty()));
    });
    Taken taken{head_known_, head_, "", finished_, failure_};
    if (!head_known_) return taken;
    taken.bytes.swap(bytes_);
    auto written = std::move(held_);
    held_.reset();
    const size_t count = held_count_;
    lock.unlock();
    if (written) written->set(count);
    return taken;
  }

  void SetHead(HttpHead head) {
    const std::lock_guard lock(mutex_);
    head_ = std::move(head);
    head_known_ = true;
    changed_.notify_all();
  }

  void Finish(std::string failure) {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    finished_ = true;
    failure_ = std::move(failure);
    changed_.notify_all();
  }

  // From now on bytes are thrown away.
  void Abandon() {
    std::unique_lock lock(mutex_);
    abandoned_ = true;
    auto written = std::move(held_);
    held_.reset();
    const size_t count = held_count_;
    lock.unlock();
    if (written) written->set(count);
  }

  bool WaitFinished(std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [&] { return finished_; });
  }

  bool can_seek() const override { return false; }
  bool has_size() const override { return false; }
  size_t buffer_size(std::ios_base::openmode) const override { return 0; }
  void set_buffer_size(size_t, std::ios_base::openmode) override {}
  size_t in_avail() const override { return 0; }
  pos_type getpos(std::ios_base::openmode) const override { return pos_type(-1); }
  pos_type seekpos(pos_type, std::ios_base::openmode) override { return pos_type(-1); }
  pos_type seekoff(off_type, std::ios_base::seekdir, std::ios_base::openmode) override {
    return pos_type(-1);
  }
  bool acquire(uint8_t*& ptr, size_t& count) override {
    ptr = nullptr;
    count = 0;
    return false;
  }
  void release(uint8_t*, size_t) override {}

 protected:
  pplx::task<size_t> _putn(const uint8_t* ptr, size_t count) override {
    const std::lock_guard lock(mutex_);
    if (abandoned_) return pplx::task_from_result(count);
    bytes_.append(reinterpret_cast<const char*>(ptr), count);
    changed_.notify_all();
    if (bytes_.size() < kBufferedBytes) return pplx::task_from_result(count);
    held_.emplace();
    held_count_ = count;
    return pplx::create_task(*held_);
  }
  pplx::task<int_type> _putc(uint8_t c) override {
    return _putn(&c, 1).then([c](size_t) { return static_cast<int_type>(c); });
  }
  pplx::task<bool> _sync() override { return pplx::task_from_result(true); }
  uint8_t* _alloc(size_t) override { return nullptr; }
  void _commit(size_t) override {}
  // Nothing is ever read from here by cpprest.
  pplx::task<int_type> _bumpc() override { return pplx::task_from_result(traits::eof()); }
  int_type _sbumpc() override { return traits::eof(); }
  pplx::task<int_type> _getc() override { return pplx::task_from_result(traits::eof()); }
  int_type _sgetc() override { return traits::eof(); }
  pplx::task<int_type> _nextc() override { return pplx::task_from_result(traits::eof()); }
  pplx::task<int_type> _ungetc() override { return pplx::task_from_result(traits::eof()); }
  pplx::task<size_t> _getn(uint8_t*, size_t) override { return pplx::task_from_result<size_t>(0); }
  size_t _scopy(uint8_t*, size_t) override { return 0; }

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  bool head_known_ = false;
  HttpHead head_;
  std::string bytes_;
  std::optional<pplx::task_completion_event<size_t>> held_;
  size_t held_count_ = 0;
  bool finished_ = false;
  bool abandoned_ = false;
  std::string failure_;
};

// "tls" problems come from cpprest as one sentence; say what to look at.
std::string Explain(const std::string& what) {
  if (what.find("SSL handshake") == std::string::npos) return what;
  return what +
         " (the server's certificate must be signed by the configured certificate authority and "
         "carry the host's name, and the client certificate, if any, must be one it accepts)";
}

// Replaces the system's authorities by ours, and presents the client certificate.
void ConfigureTls(const ClientConfig& config, boost::asio::ssl::context& context) {
  SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  if (!config.ca_pem.empty()) {
    SSL_CTX_set_cert_store(context.native_handle(), X509_STORE_new());
    context.add_certificate_authority(boost::asio::buffer(config.ca_pem));
  }
  if (!config.client_certificate_pem.empty()) {
    context.use_certificate_chain(boost::asio::buffer(config.client_certificate_pem));
    context.use_private_key(boost::asio::buffer(config.client_key_pem),
                            boost::asio::ssl::context::pem);
  }
}

class CpprestTransport : public HttpTransport {
 public:
  CpprestTransport(const ClientConfig& config, const ServerUrl& url, std::string user_agent)
      : config_(config),
        user_agent_(std::move(user_agent)),
        client_(web::uri(url.origin), ClientOptions(config)) {}

  Result<bool> Exchange(const HttpRequest& request, const HttpTiming& timing,
                        const OnBytes& on_bytes, std::stop_token stop) override {
    const auto inbox = std::make_shared<Inbox>();
    pplx::cancellation_token_source cancel;
    try {
      Start(request, inbox, cancel.get_token());
    } catch (const std::exception& error) {
      return MakeError(ErrorCode::kInternal, "request could not be made: {}", error.what());
    }
    auto result = Receive(*inbox, timing, on_bytes, std::move(stop));
    if (!result || !*result) {
      inbox->Abandon();
      pplx::create_task([cancel] { cancel.cancel(); });  // closes the connection
      // So that nothing outlives the call; what may is a name that still resolves, and a request
      // whose first address has just refused: cpprest goes on to the next one. It owns what it
      // needs, and a write that was given up may have been done in any case.
      inbox->WaitFinished(kLingerAfterAbort);
    }
    return result;
  }

 private:
  static http_client_config ClientOptions(const ClientConfig& config) {
    http_client_config options;
    options.set_timeout(kCpprestTimeout);
    options.set_validate_certificates(true);
    options.set_max_redirects(0);  // a redirect would carry the token elsewhere
    options.set_ssl_context_callback(
        [config](boost::asio::ssl::context& context) { ConfigureTls(config, context); });
    return options;
  }

  void Start(const HttpRequest& request, const std::shared_ptr<Inbox>& inbox,
             const pplx::cancellation_token& token) {
    http_request message(request.method);
    message.set_request_uri(web::uri(request.path));
    message.headers().add("Accept", "application/json");
    message.headers().add("User-Agent", user_agent_);
    if (!config_.tls_server_name.empty()) {
      message.headers().add("Host", config_.tls_server_name);  // cpprest verifies this name
    }
    if (!request.token.empty()) message.headers().add("Authorization", "Bearer " + request.token);
    if (!request.body.empty()) message.set_body(request.body, request.content_type);
    message.set_response_stream(
        Concurrency::streams::ostream(Concurrency::streams::streambuf<uint8_t>(inbox)));
    // Every task's exception must be looked at, or pplx ends the process.
    client_.request(message, token).then([inbox](pplx::task<http_response> answer) {
      try {
        http_response response = answer.get();
        HttpHead head;
        head.status = response.status_code();
        response.headers().match("Retry-After", head.retry_after);
        inbox->SetHead(std::move(head));
        response.content_ready().then([inbox](pplx::task<http_response> body) {
          try {
            body.get();
            inbox->Finish("");
          } catch (const std::exception& error) {
            inbox->Finish(Explain(error.what()));
          }
        });
      } catch (const std::exception& error) {
        inbox->Finish(Explain(error.what()));
      }
    });
  }

  static Result<bool> Receive(Inbox& inbox, const HttpTiming& timing, const OnBytes& on_bytes,
                              std::stop_token stop) {
    bool head_taken = false;
    for (;;) {
      const SteadyTime idle_until = std::chrono::steady_clock::now() + timing.idle;
      const SteadyTime until =
          timing.deadline ? std::min(*timing.deadline, idle_until) : idle_until;
      const Inbox::Taken taken = inbox.Take(head_taken, until, stop);
      if (stop.stop_requested()) return false;
      const bool progress = !taken.bytes.empty() || (taken.head_known && !head_taken);
      if (progress) {
        head_taken = true;
        QUERN_ASSIGN(const bool go_on, on_bytes(taken.head, taken.bytes));
        if (!go_on) return false;
      }
      if (taken.finished) {
        if (taken.failure.empty()) return true;
        return MakeError(ErrorCode::kUnavailable, "{}", taken.failure);
      }
      const SteadyTime now = std::chrono::steady_clock::now();
      if (timing.deadline && now >= *timing.deadline) {
        return MakeError(ErrorCode::kDeadlineExceeded, "not done within its time limit");
      }
      if (!progress && now >= idle_until) {
        return MakeError(ErrorCode::kDeadlineExceeded, "nothing heard from the server for {} ms",
                         timing.idle.count());
      }
    }
  }

  const ClientConfig config_;
  const std::string user_agent_;
  http_client client_;
};

}  // namespace

Result<HttpResponse> Send(HttpTransport& transport, const HttpRequest& request,
                          const HttpTiming& timing, size_t max_body_bytes, std::stop_token stop) {
  HttpResponse response;
  const auto collect = [&](const HttpHead& head, std::string_view bytes) -> Result<bool> {
    response.head = head;
    if (response.body.size() + bytes.size() > max_body_bytes) {
      return MakeError(ErrorCode::kResourceExhausted, "the answer is longer than {} bytes",
                       max_body_bytes);
    }
    response.body.append(bytes);
    return true;
  };
  QUERN_ASSIGN(const bool complete, transport.Exchange(request, timing, collect, std::move(stop)));
  if (!complete) return MakeError(ErrorCode::kCancelled, "stopped");
  return response;
}

Result<std::unique_ptr<HttpTransport>> MakeHttpTransport(const ClientConfig& config,
                                                         const std::string& user_agent) {
  QUERN_TRY(CheckConfig(config));
  QUERN_ASSIGN(const ServerUrl url, ParseServerUrl(config.server));
  static const bool one_thread = [] {
    try {
      crossplat::threadpool::initialize_with_threads(kIoThreads);
      return true;
    } catch (const std::exception&) {  // its own 40 have been started
      return false;
    }
  }();
  if (!one_thread) {
    return MakeError(ErrorCode::kInternal,
                     "cpprestsdk was used before the first client was made, and has more than the "
                     "one thread on which calls can be cancelled");
  }
  try {
    return std::unique_ptr<HttpTransport>(
        std::make_unique<CpprestTransport>(config, url, user_agent));
  } catch (const std::exception& error) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: {}", config.source, error.what());
  }
}

}  // namespace quern::control::kube
