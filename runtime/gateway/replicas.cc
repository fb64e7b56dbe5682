#include "runtime/gateway/replicas.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

namespace quern::gateway {
namespace {

constexpr std::chrono::milliseconds kHasteInterval{1'000};

// Of a name that stands for one server: the address that is in use, if it is still one, as some
// name servers turn their order; else one of IPv4, on which quern-serve listens unless told
// otherwise, before one of IPv6.
http::Address OneOf(const std::vector<http::Address>& found, const std::set<http::Address>& used) {
  const auto in_use =
      std::ranges::find_if(found, [&](const auto& one) { return used.contains(one); });
  if (in_use != found.end()) return *in_use;
  const auto v4 = std::ranges::find_if(
      found, [](const auto& one) { return one.ip.find(':') == std::string::npos; });
  return v4 != found.end() ? *v4 : found.front();
}

}  // namespace

// Asks one replica again and again. Ends with Stop.
class Replicas::Probe : public http::ResponseReceiver, public std::enable_shared_from_this<Probe> {
 public:
  Probe(Replicas& owner, http::Address address)
      : owner_(&owner), address_(std::move(address)), timer_(owner.io_), patience_(owner.io_) {
    auto request = std::make_shared<http::OutgoingRequest>();
    request->head = http::RequestHead(
        "GET", "/health/ready", {{"Host", address_.Show()}, {"User-Agent", "quern-gateway"}}, 0);
    request_ = std::move(request);
  }

  void Ask() {
    if (!owner_ || exchange_) return;
    status_ = 0;
    // Of its own, as the client waits for an answer for long.
    patience_.Set(owner_->config_.probe_timeout, [weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self || !self->exchange_) return;
      self->exchange_->Cancel();
      self->Answered(false, "it does not answer");
    });
    exchange_ = owner_->client_.Begin(address_, request_, shared_from_this());
  }
  void Stop() {
    owner_ = nullptr;
    timer_.Cancel();
    patience_.Cancel();
    if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->Cancel();
  }

  void OnHead(const http::ReceivedHead& head) override { status_ = head.status; }
  bool OnBody(std::string_view) override { return true; }
  void OnEnd(std::optional<http::ExchangeError> error) override {
    if (error && error->fault == http::ExchangeFault::kUnanswered && error->kept_connection &&
        owner_) {
      exchange_.reset();  // the replica had closed that connection, which says nothing of it
      return Ask();
    }
    Answered(!error && status_ == 200, error ? error->message : fmt::format("it says {}", status_));
  }

 private:
  void Answered(bool ready, const std::string& why_not) {
    exchange_.reset();
    patience_.Cancel();
    if (!owner_) return;
    const auto interval = owner_->config_.probe_interval;
    timer_.Set(owner_->haste_ ? interval / 4 : interval, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->Ask();
    });
    owner_->SetReady(address_, ready, why_not);
  }

  Replicas* owner_;
  const http::Address address_;
  std::shared_ptr<const http::OutgoingRequest> request_;
  http::Timer timer_;
  http::Timer patience_;
  std::shared_ptr<http::Exchange> exchange_;
  int status_ = 0;
};

Replicas::Replicas(boost::asio::io_context& io, const GatewayConfig& config,
                   http::HttpClient& client, GatewayMetrics& metrics,
                   std::function<void()> on_ready)
    : io_(io),
      config_(config),
      client_(client),
      metrics_(metrics),
      on_ready_(std::move(on_ready)) {}

Replicas::~Replicas() {
  *alive_ = false;
  for (const auto& [address, probe] : probes_) probe->Stop();
}

void Replicas::Start() {
  for (const Upstream& upstream : config_.upstreams) {
    names_.push_back(std::make_unique<Name>(upstream, io_));
    LookUp(*names_.back());
  }
}

void Replicas::LookUp(Name& name) {
  http::Resolve(io_, name.upstream.host, name.upstream.port,
                [this, &name, alive = alive_](Result<std::vector<http::Address>> found) {
                  if (*alive) OnLookedUp(name, std::move(found));
                });
}

void Replicas::OnLookedUp(Name& name, Result<std::vector<http::Address>> found) {
  if (found) {
    name.failure_logged = false;
    if (name.upstream.all_addresses) {
      name.addresses = {found->begin(), found->end()};
    } else {
      name.addresses = {OneOf(*found, name.addresses)};
    }
  } else {
    // A headless Service without pods has no address. Where nobody could say, all stays as it was.
    if (found.error().code == ErrorCode::kNotFound) name.addresses.clear();
    const bool is_news = !std::exchange(name.failure_logged, true);
    if (is_news && !name.upstream.all_addresses) spdlog::warn("{}", found.error().message);
  }
  Apply();
  const auto interval = set_.HasReady() ? config_.resolve_interval
                                        : std::min(config_.resolve_interval, kHasteInterval);
  name.timer.Set(interval, [this, &name] { LookUp(name); });
}

void Replicas::Apply() {
  std::set<http::Address> all;
  for (const auto& name : names_) all.insert(name->addresses.begin(), name->addresses.end());
  const ReplicaSet::Change change = set_.SetAddresses(all);
  for (const http::Address& address : change.removed) {
    spdlog::info("replica {} is gone", address.Show());
    probes_.at(address)->Stop();
    probes_.erase(address);
    client_.Forget(address);
  }
  for (const http::Address& address : change.added) {
    spdlog::info("replica {} is there", address.Show());
    probes_.emplace(address, std::make_shared<Probe>(*this, address)).first->second->Ask();
  }
  Tell();
}

void Replicas::Suspect(const http::Address& address, const char* why) {
  if (!set_.Has(address)) return;
  SetReady(address, false, why);
  client_.Forget(address);
  probes_.at(address)->Ask();
}

void Replicas::SetReady(const http::Address& address, bool ready, const std::string& why_not) {
  if (set_.IsReady(address) == ready) return;
  set_.SetReady(address, ready);
  Tell();
  if (ready) {
    spdlog::info("replica {} is ready", address.Show());
    return on_ready_();
  }
  spdlog::info("replica {} is not ready: {}", address.Show(), why_not);
}

void Replicas::Tell() { metrics_.SetReplicas(set_.size(), set_.ready()); }

}  // namespace quern::gateway
