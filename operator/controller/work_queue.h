#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <queue>
#include <set>
#include <stop_token>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "operator/kube/object.h"
#include "runtime/base/clock.h"

namespace quern::control {

using kube::ObjectKey;

// What a queue tells a metrics room. Called with no lock held; any may be empty.
struct WorkQueueHooks {
  std::function<void()> on_add;
  std::function<void()> on_retry;
  std::function<void(Seconds)> on_start;  // how long the key waited
  std::function<void(Seconds)> on_done;   // how long the work took
  std::function<void()> on_full;          // a key was turned away
};

struct WorkQueueOptions {
  std::chrono::nanoseconds base_backoff = std::chrono::milliseconds(5);
  std::chrono::nanoseconds max_backoff = std::chrono::seconds(1000);
  double retries_per_second = 10;  // all keys together: a token bucket
  double retry_burst = 100;
  size_t max_keys = 200'000;  // queued and delayed; far above what a cluster holds
};

// The keys that want work. A key is in work with one worker at a time; added meanwhile, it comes
// again afterwards; added twice before it starts, it comes once. (client-go's rate-limiting
// queue.) Thread-safe.
class WorkQueue {
 public:
  explicit WorkQueue(WorkQueueOptions options, const Clock& clock = RealClock(),
                     WorkQueueHooks hooks = {});
  ~WorkQueue() { ShutDown(); }

  // False when the queue is full or shut down.
  bool Add(const ObjectKey& key);
  // After `delay`; of several delays of one key the soonest counts.
  bool AddAfter(const ObjectKey& key, std::chrono::nanoseconds delay);
  // After the key's own back-off (5 ms, doubled each time, up to 1000 s) or when the common bucket
  // has a token, whichever is later. Returns the delay.
  std::chrono::nanoseconds AddRateLimited(const ObjectKey& key);
  // Counts a failure without bringing the key back: for callers with a delay of their own.
  void CountRetry(const ObjectKey& key);
  // The key's back-off starts anew.
  void Forget(const ObjectKey& key);
  int Retries(const ObjectKey& key) const;

  // The next key, waiting for one (on the real clock); nothing once `stop` is asked for or the
  // queue is shut down. Done must follow.
  std::optional<ObjectKey> Get(std::stop_token stop);
  // The same without waiting: for tests with a clock moved by hand.
  std::optional<ObjectKey> TryGet();
  void Done(const ObjectKey& key);

  // Wakes all who wait; nothing comes out from then on.
  void ShutDown();

  size_t depth() const;  // ready, not delayed ones
  size_t delayed() const;
  // When the next delayed key is due.
  std::optional<SteadyTime> NextDue() const;

 private:
  struct Delayed {
    SteadyTime due;
    uint64_t sequence;
    ObjectKey key;
    bool operator>(const Delayed& other) const {
      return due != other.due ? due > other.due : sequence > other.sequence;
    }
  };

  void AddLocked(const ObjectKey& key);
  void MoveDueLocked();
  std::optional<ObjectKey> TakeLocked(Seconds* waited);
  std::chrono::nanoseconds ReserveTokenLocked();

  const WorkQueueOptions options_;
  const Clock& clock_;
  const WorkQueueHooks hooks_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  bool shut_down_ = false;
  std::deque<ObjectKey> ready_;
  std::unordered_map<ObjectKey, SteadyTime, kube::ObjectKeyHash> dirty_;  // wants work, since when
  std::unordered_map<ObjectKey, SteadyTime, kube::ObjectKeyHash> in_work_;
  std::priority_queue<Delayed, std::vector<Delayed>, std::greater<>> delayed_;
  std::unordered_map<ObjectKey, SteadyTime, kube::ObjectKeyHash> due_;  // of each delayed key
  std::unordered_map<ObjectKey, int, kube::ObjectKeyHash> retries_;
  uint64_t sequence_ = 0;
  double tokens_;
  SteadyTime tokens_at_;
};

}  // namespace quern::control
