#include "operator/controller/informer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <condition_variable>

namespace quern::control {
namespace {

void DropManagedFields(json& object) {
  if (object.contains("metadata") && object["metadata"].is_object()) {
    object["metadata"].erase("managedFields");
  }
}

InformerOptions WithDefaults(InformerOptions options) {
  if (!options.transform) options.transform = DropManagedFields;
  if (options.jitter_seed == 0) options.jitter_seed = std::random_device()();
  return options;
}

}  // namespace

Informer::Informer(kube::Client& client, kube::ResourceType type, InformerOptions options,
                   const Clock& clock)
    : client_(client),
      type_(std::move(type)),
      options_(WithDefaults(std::move(options))),
      clock_(clock),
      random_(options_.jitter_seed) {
  Contact();
}

void Informer::Run(std::stop_token stop) {
  InformerState state;
  std::mutex mutex;
  std::condition_variable_any never;
  while (!stop.stop_requested()) {
    InformerStep step = Step(state, stop);
    state = std::move(step.next);
    if (step.wait.count() == 0) continue;
    std::unique_lock lock(mutex);
    never.wait_for(lock, stop, step.wait, [] { return false; });
  }
}

InformerStep Informer::Step(const InformerState& state, std::stop_token stop) {
  if (state.phase == InformerState::Phase::kEmpty) return List(state);
  return Watch(state, std::move(stop));
}

InformerStep Informer::List(const InformerState& state) {
  lists_.fetch_add(1);
  auto list = client_.List(type_, options_.ns,
                           {.label_selector = options_.label_selector,
                            .field_selector = options_.field_selector,
                            .transform = options_.transform});
  if (!list) return Failed(state, std::move(list).error());
  Contact();
  Notify(store_.Replace(std::move(list->items)));
  synced_.store(true);
  {
    const std::lock_guard lock(error_mutex_);
    last_error_.clear();
  }
  // The failures are kept until a watch has worked: a list that always succeeds must not make an
  // ever-failing watch run without a pause.
  return {{InformerState::Phase::kListed, list->resource_version, state.failures}, {}, {}};
}

InformerStep Informer::Watch(const InformerState& state, std::stop_token stop) {
  watches_.fetch_add(1);
  InformerState next = state;
  size_t heard = 0;
  const SteadyTime begin = clock_.Now();
  // Jittered, so that not all watches of all informers end together.
  const auto timeout = options_.watch_timeout + std::chrono::duration_cast<std::chrono::seconds>(
                                                    options_.watch_timeout * (Jitter() / 10));
  Status status = client_.Watch(
      type_, options_.ns,
      {options_.label_selector, options_.field_selector, state.resource_version, timeout},
      [&](const kube::WatchEvent& event) {
        ++heard;
        return OnEvent(event, &next.resource_version);
      },
      stop);
  if (heard > 0) {
    next.phase = InformerState::Phase::kWatching;
    next.failures = 0;
  }
  if (stop.stop_requested()) return {next, {}, {}};
  if (!status && status.error().code == ErrorCode::kExpired) {
    // Expected after a long silence: list at once, unless the watch was opened at what a list has
    // just given, which should never have expired.
    const bool just_listed = state.phase == InformerState::Phase::kListed && heard == 0;
    InformerState empty{InformerState::Phase::kEmpty, "", next.failures};
    if (just_listed) return Failed(std::move(empty), std::move(status));
    return {std::move(empty), std::move(status), {}};
  }
  if (!status) return Failed(std::move(next), std::move(status));
  if (heard == 0 && clock_.Now() - begin < options_.shortest_good_watch) {
    return Failed(
        std::move(next),
        MakeError(ErrorCode::kUnavailable, "watch {}: the server ended it at once", type_.plural));
  }
  Contact();
  next.phase = InformerState::Phase::kWatching;
  next.failures = 0;
  const std::lock_guard lock(error_mutex_);
  last_error_.clear();
  return {std::move(next), {}, {}};
}

bool Informer::OnEvent(const kube::WatchEvent& event, std::string* resource_version) {
  Contact();
  events_.fetch_add(1);
  *resource_version = kube::ObjectResourceVersion(event.object);
  switch (event.type) {
    case kube::WatchEvent::Type::kBookmark:
      break;
    case kube::WatchEvent::Type::kDeleted: {
      json object = event.object;
      options_.transform(object);
      Notify(store_.Remove(object));
      break;
    }
    case kube::WatchEvent::Type::kAdded:
    case kube::WatchEvent::Type::kModified: {
      json object = event.object;
      options_.transform(object);
      Notify(store_.Put(std::move(object)));
      break;
    }
  }
  return true;
}

InformerStep Informer::Failed(InformerState next, Status status) {
  const int doublings = std::min(next.failures, 20);
  next.failures = std::min(next.failures + 1, 1000);
  const auto limit = std::min<std::chrono::milliseconds>(
      options_.max_backoff, options_.min_backoff * (int64_t{1} << doublings));
  // Between half and all of the limit: informers that failed together come back apart.
  const auto wait = std::chrono::milliseconds(
      static_cast<int64_t>(static_cast<double>(limit.count()) * (0.5 + Jitter() / 2)));
  spdlog::warn("informer {}: {}; again in {} ms", type_.plural, status.error().message,
               wait.count());
  const std::lock_guard lock(error_mutex_);
  last_error_ = status.error().message;
  return {std::move(next), std::move(status), wait};
}

void Informer::Notify(const std::vector<Change>& changes) {
  for (const Change& change : changes) {
    for (const Listener& listener : listeners_) listener(change);
  }
}

void Informer::Contact() { last_contact_ns_.store(clock_.Now().time_since_epoch().count()); }

std::chrono::nanoseconds Informer::SinceContact() const {
  return clock_.Now().time_since_epoch() - std::chrono::nanoseconds(last_contact_ns_.load());
}

std::string Informer::LastError() const {
  const std::lock_guard lock(error_mutex_);
  return last_error_;
}

double Informer::Jitter() { return std::uniform_real_distribution<double>(0.0, 1.0)(random_); }

}  // namespace quern::control
