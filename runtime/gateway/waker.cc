#include "runtime/gateway/waker.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <fstream>
#include <utility>

namespace quern::gateway {
namespace {

constexpr std::chrono::milliseconds kFirstBackoff{250};
constexpr std::chrono::milliseconds kLastBackoff{5'000};
constexpr std::chrono::milliseconds kAgain{10'000};
constexpr std::chrono::milliseconds kCallTimeout{5'000};
constexpr size_t kMaxTokenBytes = 16 * 1024;

// The file's first line. It is small and local: a Secret or a projected token.
Result<std::string> ReadToken(const std::string& path) {
  std::ifstream file(path);
  std::string token;
  if (!file || !std::getline(file, token) || token.empty()) {
    return MakeError(ErrorCode::kNotFound, "cannot read a token from {}", path);
  }
  if (token.ends_with('\r')) token.pop_back();
  const auto is_plain = [](char c) { return c > ' ' && c < 0x7f; };
  if (token.size() > kMaxTokenBytes || !std::all_of(token.begin(), token.end(), is_plain)) {
    return MakeError(ErrorCode::kInvalidArgument, "{} has no token in its first line", path);
  }
  return token;
}

}  // namespace

// One call under way.
class Waker::Call : public http::ResponseReceiver {
 public:
  explicit Call(Waker& owner) : owner_(&owner) {}
  void Take(std::shared_ptr<http::Exchange> exchange) { exchange_ = std::move(exchange); }
  void Stop() {
    owner_ = nullptr;
    if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->Cancel();
  }
  void OnHead(const http::ReceivedHead& head) override { status_ = head.status; }
  bool OnBody(std::string_view) override { return true; }
  void OnEnd(std::optional<http::ExchangeError> error) override {
    exchange_.reset();
    if (!owner_) return;
    owner_->OnAnswer(!error && status_ / 100 == 2,
                     error ? error->message : fmt::format("it answers {}", status_));
  }

 private:
  Waker* owner_;
  std::shared_ptr<http::Exchange> exchange_;
  int status_ = 0;
};

Waker::Waker(boost::asio::io_context& io, const GatewayConfig& config, http::HttpClient& client,
             GatewayMetrics& metrics, std::function<bool()> waits)
    : io_(io),
      target_(config.wake),
      client_(client),
      metrics_(metrics),
      waits_(std::move(waits)),
      timer_(io),
      patience_(io) {}

Waker::~Waker() {
  *alive_ = false;
  if (call_) call_->Stop();
}

void Waker::Wake(bool first) {
  if (target_.host.empty() || call_) return;
  if (scheduled_ && (!first || failures_ > 0)) return;
  Send();
}

void Waker::Send() {
  scheduled_ = false;
  timer_.Cancel();
  if (!waits_()) {
    failures_ = 0;
    return;
  }
  call_ = std::make_shared<Call>(*this);
  patience_.Set(kCallTimeout, [this] {
    call_->Stop();
    OnAnswer(false, "it does not answer");
  });
  http::Headers headers = {{"Host", target_.authority}, {"User-Agent", "quern-gateway"}};
  if (!target_.token_file.empty()) {
    const auto token = ReadToken(target_.token_file);
    if (!token) return OnAnswer(false, token.error().message);
    headers.emplace_back("Authorization", "Bearer " + *token);
  }
  auto request = std::make_shared<http::OutgoingRequest>();
  request->head = http::RequestHead("POST", target_.path, headers, 0);
  http::Resolve(io_, target_.host, target_.port,
                [this, alive = alive_, call = call_,
                 request](const Result<std::vector<http::Address>>& found) {
                  if (!*alive || call != call_) return;
                  if (!found) return OnAnswer(false, found.error().message);
                  call->Take(client_.Begin(found->front(), request, call));
                });
}

void Waker::OnAnswer(bool succeeded, const std::string& what) {
  call_.reset();
  patience_.Cancel();
  metrics_.CountWake(succeeded);
  if (succeeded) {
    if (failures_ > 0) spdlog::info("the wake URL was called, after {} failures", failures_);
    failures_ = 0;
  } else if (failures_++ == 0) {
    spdlog::warn("cannot call the wake URL http://{}{}: {}; trying again while requests wait",
                 target_.authority, target_.path, what);
  }
  const auto backoff = kFirstBackoff * (1 << std::clamp(failures_ - 1, 0, 10));
  scheduled_ = true;
  timer_.Set(succeeded ? kAgain : std::min<std::chrono::milliseconds>(backoff, kLastBackoff),
             [this] { Send(); });
}

}  // namespace quern::gateway
