#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <random>
#include <stop_token>
#include <string>
#include <vector>

#include "operator/controller/store.h"
#include "operator/kube/client.h"
#include "runtime/base/clock.h"

namespace quern::control {

struct InformerOptions {
  std::string ns;  // "" for all namespaces
  std::string label_selector;
  std::string field_selector;
  std::chrono::seconds watch_timeout{
      290};  // the server ends a watch then; jittered by up to a tenth
  std::chrono::milliseconds min_backoff{200};
  std::chrono::milliseconds max_backoff{30'000};
  // A watch that the server ends sooner than this without an event counts as a failure.
  std::chrono::milliseconds shortest_good_watch{1000};
  // Applied to every object before it is stored; the default drops metadata.managedFields.
  std::function<void(json&)> transform;
  uint64_t jitter_seed = 0;  // 0: from the system's randomness
};

// Where an informer stands. Empty: nothing is known (or the resource version has expired), so list.
// Listed: the store is what the server had at `resource_version`; a watch is to be opened from
// there. Watching: watches have delivered since; the next goes on from the last event's version.
struct InformerState {
  enum class Phase { kEmpty, kListed, kWatching };
  Phase phase = Phase::kEmpty;
  std::string resource_version;
  int failures = 0;  // in a row

  bool operator==(const InformerState&) const = default;
};

// What one step did: the state after it, the error it met, and how long to wait before the next.
struct InformerStep {
  InformerState next;
  Status status;
  std::chrono::milliseconds wait{0};
};

// Keeps a Store in step with the cluster: list, then watch with bookmarks, resumed from the last
// resource version; when that has expired (410, as a status or within the stream), list again, and
// find by comparison what was deleted meanwhile. (The method of client-go's reflector and of
// kube-rs' watcher.)
class Informer {
 public:
  // Called after the store has taken the change, on the thread that runs the informer; must not
  // block. Each object's changes come in order.
  using Listener = std::function<void(const Change&)>;

  // `client` and `clock` must outlive it.
  Informer(kube::Client& client, kube::ResourceType type, InformerOptions options,
           const Clock& clock = RealClock());

  // Before Run only.
  void AddListener(Listener listener) { listeners_.push_back(std::move(listener)); }

  // Until `stop`: steps, with back-off and jitter after errors.
  void Run(std::stop_token stop);
  // One list, or one watch from its opening to its end. What Run repeats; for tests.
  InformerStep Step(const InformerState& state, std::stop_token stop);

  const Store& store() const { return store_; }
  const kube::ResourceType& type() const { return type_; }
  // The first list is in the store and its listeners have been called. Any thread.
  bool HasSynced() const { return synced_.load(); }
  // Time since the server last said anything (a list, an event, a bookmark, the regular end of a
  // watch). Any thread.
  std::chrono::nanoseconds SinceContact() const;
  // The last error; "" once things go well again. Any thread.
  std::string LastError() const;
  // Counts since the start, for metrics. Any thread.
  uint64_t lists() const { return lists_.load(); }
  uint64_t watches() const { return watches_.load(); }
  uint64_t events() const { return events_.load(); }

 private:
  InformerStep List(const InformerState& state);
  InformerStep Watch(const InformerState& state, std::stop_token stop);
  InformerStep Failed(InformerState next, Status status);
  bool OnEvent(const kube::WatchEvent& event, std::string* resource_version);
  void Notify(const std::vector<Change>& changes);
  void Contact();
  double Jitter();  // in [0, 1)

  kube::Client& client_;
  const kube::ResourceType type_;
  const InformerOptions options_;
  const Clock& clock_;
  std::vector<Listener> listeners_;
  Store store_;
  std::mt19937_64 random_;
  std::atomic<bool> synced_{false};
  std::atomic<int64_t> last_contact_ns_;
  std::atomic<uint64_t> lists_{0}, watches_{0}, events_{0};
  mutable std::mutex error_mutex_;
  std::string last_error_;
};

}  // namespace quern::control
