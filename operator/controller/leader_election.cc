#include "operator/controller/leader_election.h"

#include <fmt/chrono.h>
#include <spdlog/spdlog.h>

#include <thread>

#include "operator/controller/micro_time.h"
#include "operator/kube/object.h"

namespace quern::control {
namespace {

const kube::ResourceType kLease{"coordination.k8s.io", "v1", "Lease", "leases", true};

// Sleeps, unless `stop` is asked for.
void Pause(std::chrono::nanoseconds delay, std::stop_token stop) {
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  never.wait_for(lock, stop, delay, [] { return false; });
}

int64_t WholeSeconds(std::chrono::milliseconds duration) {
  return std::max<int64_t>(1, (duration.count() + 999) / 1000);
}

int64_t IntegerAt(const json& object, const char* field) {
  const auto found = object.is_object() ? object.find(field) : object.end();
  return object.is_object() && found != object.end() && found->is_number_integer()
             ? found->get<int64_t>()
             : 0;
}

// A call over a new connection may do better.
bool IsConnectionLost(ErrorCode code) {
  return code == ErrorCode::kUnavailable || code == ErrorCode::kDeadlineExceeded;
}

}  // namespace

std::chrono::milliseconds LeaseCallTimeout(const LeaderElectionOptions& options) {
  return options.renew_deadline / 4;
}

LeaderElector::LeaderElector(kube::Client& client, LeaderElectionOptions options,
                             const Clock& clock)
    : client_(client), options_(std::move(options)), clock_(clock) {}

Status LeaderElector::CheckOptions() const {
  if (options_.ns.empty() || options_.name.empty() || options_.identity.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "leader election: namespace, name and identity must be given");
  }
  if (options_.retry_period.count() <= 0 || options_.renew_deadline <= options_.retry_period ||
      options_.lease_duration <= options_.renew_deadline) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "leader election: retry period {} ms < renew deadline {} ms < lease duration "
                     "{} ms must hold",
                     options_.retry_period.count(), options_.renew_deadline.count(),
                     options_.lease_duration.count());
  }
  return {};
}

Result<bool> LeaderElector::TryAcquireOrRenew() {
  const SteadyTime begin = std::chrono::steady_clock::now();
  auto lease = client_.Get(kLease, options_.ns, options_.name);
  Result<json> written = json();
  if (!lease && lease.error().code == ErrorCode::kNotFound) {
    written = client_.Create(kLease, options_.ns,
                             {{"apiVersion", "coordination.k8s.io/v1"},
                              {"kind", "Lease"},
                              {"metadata", {{"name", options_.name}, {"namespace", options_.ns}}},
                              {"spec", MakeSpec(json::object())}});
  } else if (!lease) {
    return std::move(lease).error();
  } else {
    json spec = lease->value("spec", json::object());
    if (HeldByAnother(spec)) return false;
    (*lease)["spec"] = MakeSpec(spec);
    written = client_.Update(kLease, options_.ns, *lease);
  }
  if (!written) {
    // Another candidate was faster: no fault, only no lead.
    const ErrorCode code = written.error().code;
    if (code == ErrorCode::kConflict || code == ErrorCode::kAlreadyExists) return false;
    return std::move(written).error();
  }
  Observe(written->value("spec", json::object()));
  const std::lock_guard lock(mutex_);
  held_since_ = begin;
  renewed_.notify_all();
  return true;
}

bool LeaderElector::HeldByAnother(const json& spec) {
  Observe(spec);
  const std::lock_guard lock(mutex_);
  if (holder_.empty() || holder_ == options_.identity) return false;
  const int64_t seconds = IntegerAt(spec, "leaseDurationSeconds");
  const std::chrono::nanoseconds duration =
      seconds > 0 ? std::chrono::nanoseconds(std::chrono::seconds(seconds))
                  : std::chrono::nanoseconds(options_.lease_duration);
  return clock_.Now() - observed_at_ < duration;
}

void LeaderElector::Observe(const json& spec) {
  const std::lock_guard lock(mutex_);
  if (spec != observed_ || observed_.is_null()) {
    observed_ = spec;
    observed_at_ = clock_.Now();
  }
  const std::string holder = kube::StringAt(spec, "/holderIdentity");
  if (holder != holder_) {
    spdlog::info("leader election: lease {}/{} is held by {}", options_.ns, options_.name,
                 holder.empty() ? "nobody" : holder);
    holder_ = holder;
  }
}

json LeaderElector::MakeSpec(const json& before) const {
  const std::string now = MicroTime(clock_.WallNow());
  json spec{{"holderIdentity", options_.identity},
            {"leaseDurationSeconds", WholeSeconds(options_.lease_duration)},
            {"renewTime", now}};
  const bool mine = kube::StringAt(before, "/holderIdentity") == options_.identity;
  const int64_t transitions = IntegerAt(before, "leaseTransitions");
  const std::string acquired = kube::StringAt(before, "/acquireTime");
  spec["acquireTime"] = mine && !acquired.empty() ? acquired : now;
  spec["leaseTransitions"] = mine || before.empty() ? transitions : transitions + 1;
  return spec;
}

Status LeaderElector::Release() {
  auto lease = client_.Get(kLease, options_.ns, options_.name);
  if (!lease) return std::move(lease).error();
  const json spec = lease->value("spec", json::object());
  if (kube::StringAt(spec, "/holderIdentity") != options_.identity) return {};
  json released = MakeSpec(spec);
  released["holderIdentity"] = "";
  released["leaseDurationSeconds"] = 1;
  (*lease)["spec"] = released;
  QUERN_ASSIGN(const json written, client_.Update(kLease, options_.ns, *lease));
  Observe(written.value("spec", json::object()));
  return {};
}

std::string LeaderElector::Holder() const {
  const std::lock_guard lock(mutex_);
  return holder_;
}

bool LeaderElector::Acquire(std::stop_token stop) {
  while (!stop.stop_requested()) {
    const auto acquired = TryAcquireOrRenew();
    if (acquired.ok() && *acquired) return true;
    if (!acquired) spdlog::warn("leader election: {}", acquired.error().message);
    Pause(options_.retry_period, stop);
  }
  return false;
}

void LeaderElector::Renew(std::stop_token stop) {
  while (!stop.stop_requested()) {
    Pause(options_.retry_period, stop);
    if (stop.stop_requested()) return;
    const auto renewed = TryAcquireOrRenew();
    if (!renewed) spdlog::warn("leader election: not renewed: {}", renewed.error().message);
  }
}

// On a thread apart from Renew's, whose call may hang for longer than the lease lasts.
void LeaderElector::LoseWhenOverdue(std::stop_token stop, std::stop_source& lost) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const SteadyTime until = held_since_ + options_.renew_deadline;
    if (std::chrono::steady_clock::now() >= until) {
      spdlog::error("leader election: lease {}/{} not renewed within {} ms; the lead is lost",
                    options_.ns, options_.name, options_.renew_deadline.count());
      leader_.store(false);
      lock.unlock();  // those who are asked to stop may ask us who leads
      lost.request_stop();
      return;
    }
    renewed_.wait_until(lock, stop, until,
                        [&] { return held_since_ + options_.renew_deadline != until; });
  }
}

Status LeaderElector::Run(std::stop_token stop, const std::function<void(std::stop_token)>& lead) {
  QUERN_TRY(CheckOptions());
  if (!Acquire(stop)) return {};
  leader_.store(true);
  spdlog::info("leader election: {} leads", options_.identity);
  std::stop_source end;  // from outside, or lost
  std::stop_source lost;
  const std::stop_callback on_stop(stop, [&] { end.request_stop(); });
  const std::stop_callback on_lost(lost.get_token(), [&] { end.request_stop(); });
  {
    const std::jthread renewer([this](std::stop_token own) { Renew(std::move(own)); });
    const std::jthread watchdog(
        [this, &lost](std::stop_token own) { LoseWhenOverdue(std::move(own), lost); });
    lead(end.get_token());
  }
  leader_.store(false);
  if (lost.stop_requested()) {
    return MakeError(ErrorCode::kUnavailable, "leader election: the lease {}/{} was lost",
                     options_.ns, options_.name);
  }
  if (!options_.release_on_exit) return {};
  Status released = Release();
  for (int again = 0; again < 2 && !released && IsConnectionLost(released.error().code); ++again)
    released = Release();
  if (!released) {  // it runs out by itself
    spdlog::warn("leader election: not released: {}", released.error().message);
  }
  return {};
}

}  // namespace quern::control
