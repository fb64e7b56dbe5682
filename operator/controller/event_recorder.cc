#include "operator/controller/event_recorder.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "operator/controller/micro_time.h"

namespace quern::control {
namespace {

using kube::json;

const kube::ResourceType kEvent{"events.k8s.io", "v1", "Event", "events", true};
constexpr size_t kMaxNoteBytes = 1024;  // the API server's limit
constexpr std::chrono::seconds kDrain{3};
constexpr int kAttempts = 3;

// Cuts at a whole UTF-8 character.
std::string CutNote(std::string note) {
  if (note.size() <= kMaxNoteBytes) return note;
  size_t end = kMaxNoteBytes - 3;
  while (end > 0 && (static_cast<unsigned char>(note[end]) & 0xc0) == 0x80) --end;
  return note.substr(0, end) + "...";
}

bool MayPass(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kDeadlineExceeded ||
         error.code == ErrorCode::kResourceExhausted;
}

}  // namespace

EventRecorder::EventRecorder(kube::Client& client, EventRecorderOptions options, const Clock& clock)
    : client_(client),
      options_(std::move(options)),
      clock_(clock),
      thread_([this](std::stop_token stop) { Loop(std::move(stop)); }) {}

EventRecorder::~EventRecorder() {
  thread_.request_stop();
  thread_.join();
}

void EventRecorder::Normal(const json& object, const std::string& reason, const std::string& action,
                           const std::string& note) {
  Record(object, "Normal", reason, action, note);
}

void EventRecorder::Warning(const json& object, const std::string& reason,
                            const std::string& action, const std::string& note) {
  Record(object, "Warning", reason, action, note);
}

void EventRecorder::Record(const json& object, const char* type, const std::string& reason,
                           const std::string& action, const std::string& note) {
  json regarding{{"apiVersion", kube::ObjectApiVersion(object)},
                 {"kind", kube::ObjectKind(object)},
                 {"name", kube::ObjectName(object)},
                 {"uid", kube::ObjectUid(object)},
                 {"resourceVersion", kube::ObjectResourceVersion(object)}};
  const std::string ns = kube::ObjectNamespace(object);
  if (!ns.empty()) regarding["namespace"] = ns;
  const std::lock_guard lock(mutex_);
  if (pending_.size() >= options_.max_pending || !TakeTokenLocked(kube::ObjectUid(object))) {
    Lost(dropped_, "too_many");
    return;
  }
  pending_.push_back({std::move(regarding), type, reason, action, CutNote(note), clock_.WallNow()});
  changed_.notify_all();
}

void EventRecorder::Lost(std::atomic<uint64_t>& count, const char* reason, size_t events) {
  count.fetch_add(events);
  for (size_t i = 0; i < events && options_.on_lost; ++i) options_.on_lost(reason);
}

bool EventRecorder::TakeTokenLocked(const std::string& uid) {
  const SteadyTime now = clock_.Now();
  if (buckets_.size() > options_.max_series) {
    // Objects that have been quiet long enough to have all their tokens again need no bucket.
    std::erase_if(buckets_, [&](const auto& entry) {
      return entry.second.tokens + Seconds(now - entry.second.at).count() * options_.per_second >=
             options_.burst;
    });
    if (buckets_.size() > options_.max_series) return false;
  }
  Bucket& bucket = buckets_.try_emplace(uid, Bucket{options_.burst, now}).first->second;
  const double refilled = Seconds(now - bucket.at).count() * options_.per_second;
  bucket.tokens = std::min(options_.burst, bucket.tokens + refilled);
  bucket.at = now;
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}

void EventRecorder::Loop(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  std::optional<SteadyTime> drain_until;
  for (;;) {
    changed_.wait(lock, stop, [&] { return !pending_.empty(); });
    if (stop.stop_requested() && !drain_until) {
      drain_until = std::chrono::steady_clock::now() + kDrain;
    }
    const bool late = drain_until && std::chrono::steady_clock::now() >= *drain_until;
    if (pending_.empty() || late) {
      Lost(dropped_, "not_sent", pending_.size());
      pending_.clear();
      changed_.notify_all();
      return;
    }
    const Pending event = std::move(pending_.front());
    pending_.pop_front();
    sending_ = true;
    lock.unlock();
    Status status = Send(event);
    for (int attempt = 1;
         !status && MayPass(status.error()) && attempt < kAttempts && !stop.stop_requested();
         ++attempt) {
      std::unique_lock wait(mutex_);
      changed_.wait_for(wait, stop, std::chrono::seconds(attempt), [] { return false; });
      wait.unlock();
      status = Send(event);
    }
    if (status) {
      sent_.fetch_add(1);
    } else {
      Lost(failed_, "not_sent");
      spdlog::warn("event {} not recorded: {}", event.reason, status.error().message);
    }
    lock.lock();
    sending_ = false;
    changed_.notify_all();
  }
}

Status EventRecorder::Send(const Pending& event) {
  const std::string fingerprint = kube::StringAt(event.regarding, "/uid") + "\n" + event.type +
                                  "\n" + event.reason + "\n" + event.action + "\n" + event.note;
  const SteadyTime now = clock_.Now();
  const auto found = by_fingerprint_.find(fingerprint);
  if (found == by_fingerprint_.end()) return Create(event, fingerprint);
  const auto series = found->second;
  if (now - series->last > options_.series_window) return Create(event, fingerprint);
  const json patch{
      {"series", {{"count", series->count + 1}, {"lastObservedTime", MicroTime(event.at)}}}};
  auto patched = client_.MergePatch(kEvent, series->ns, series->name, patch);
  if (!patched && patched.error().code == ErrorCode::kNotFound) return Create(event, fingerprint);
  if (!patched) return std::move(patched).error();
  ++series->count;
  series->last = now;
  series_.splice(series_.begin(), series_, series);
  return {};
}

Status EventRecorder::Create(const Pending& event, const std::string& fingerprint) {
  if (const auto found = by_fingerprint_.find(fingerprint); found != by_fingerprint_.end()) {
    series_.erase(found->second);
    by_fingerprint_.erase(found);
  }
  // Cluster-scoped objects' events live in "default", where kubectl looks for them.
  const std::string own = kube::StringAt(event.regarding, "/namespace");
  const std::string ns = own.empty() ? "default" : own;
  const auto stamp = event.at.time_since_epoch().count();
  const std::string name =
      fmt::format("{}.{:x}", kube::StringAt(event.regarding, "/name").substr(0, 200),
                  static_cast<uint64_t>(stamp) + sent_.load());
  const json object{{"apiVersion", "events.k8s.io/v1"},
                    {"kind", "Event"},
                    {"metadata", {{"name", name}, {"namespace", ns}}},
                    {"eventTime", MicroTime(event.at)},
                    {"reportingController", options_.controller},
                    {"reportingInstance", options_.instance.substr(0, 128)},
                    {"action", event.action.substr(0, 128)},
                    {"reason", event.reason.substr(0, 128)},
                    {"regarding", event.regarding},
                    {"note", event.note},
                    {"type", event.type}};
  auto created = client_.Create(kEvent, ns, object);
  if (!created) return std::move(created).error();
  series_.push_front({fingerprint, ns, name, 1, clock_.Now()});
  by_fingerprint_[fingerprint] = series_.begin();
  if (series_.size() > options_.max_series) {
    by_fingerprint_.erase(series_.back().fingerprint);
    series_.pop_back();
  }
  return {};
}

bool EventRecorder::Flush(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, timeout, [&] { return pending_.empty() && !sending_; });
}

}  // namespace quern::control
