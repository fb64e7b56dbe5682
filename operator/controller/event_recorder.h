#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>

#include "operator/kube/client.h"
#include "operator/kube/object.h"
#include "runtime/base/clock.h"

namespace quern::control {

struct EventRecorderOptions {
  std::string controller = "serving.quern.dev/quern-operator";  // reportingController
  std::string instance;                                         // reportingInstance: the pod's name
  size_t max_pending = 1000;                                    // more are dropped, and counted
  size_t max_series = 4096;                 // remembered events that a repetition is added to
  std::chrono::seconds series_window{600};  // a repetition later than this is a new event
  double burst = 25;                        // events of one object at once
  double per_second = 1.0 / 60;             // and how fast it may have more
  // An event that nobody will see, for metrics, and why: "too_many" (of its object, or of all that
  // wait) or "not_sent" (refused by the API server, or still waiting at the end). From any thread;
  // must not call the recorder.
  std::function<void(const char* reason)> on_lost;
};

// Events (events.k8s.io/v1) that `kubectl describe` shows. Repetitions of one event become a series
// with a count; an object that repeats itself too fast is quietened. Never blocks and never fails
// its caller: a thread of its own sends. Thread-safe.
class EventRecorder {
 public:
  EventRecorder(kube::Client& client, EventRecorderOptions options,
                const Clock& clock = RealClock());
  // Sends what is pending, for a few seconds and the call in work at most.
  ~EventRecorder();

  // `object` is what the event is about (with apiVersion, kind and metadata). `reason` is a
  // CamelCase word, `action` what was being done ("Reconcile"), `note` a sentence (cut at 1 kB).
  void Normal(const kube::json& object, const std::string& reason, const std::string& action,
              const std::string& note);
  void Warning(const kube::json& object, const std::string& reason, const std::string& action,
               const std::string& note);

  // Waits until nothing is pending; false when that takes longer. For tests and for shutdown.
  bool Flush(std::chrono::milliseconds timeout);
  uint64_t dropped() const { return dropped_.load(); }
  uint64_t sent() const { return sent_.load(); }
  uint64_t failed() const { return failed_.load(); }

 private:
  struct Pending {
    kube::json regarding;
    std::string type, reason, action, note;
    std::chrono::system_clock::time_point at;
  };
  struct Series {
    std::string fingerprint;
    std::string ns, name;  // of the Event object
    int count = 1;
    SteadyTime last;
  };
  struct Bucket {
    double tokens;
    SteadyTime at;
  };

  void Record(const kube::json& object, const char* type, const std::string& reason,
              const std::string& action, const std::string& note);
  void Lost(std::atomic<uint64_t>& count, const char* reason, size_t events = 1);
  bool TakeTokenLocked(const std::string& uid);
  void Loop(std::stop_token stop);
  Status Send(const Pending& event);
  Status Create(const Pending& event, const std::string& fingerprint);

  kube::Client& client_;
  const EventRecorderOptions options_;
  const Clock& clock_;
  std::atomic<uint64_t> dropped_{0}, sent_{0}, failed_{0};

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Pending> pending_;
  bool sending_ = false;
  std::unordered_map<std::string, Bucket> buckets_;  // by uid
  // Only the sending thread's: most recent first.
  std::list<Series> series_;
  std::unordered_map<std::string, std::list<Series>::iterator> by_fingerprint_;
  std::jthread thread_;
};

}  // namespace quern::control
