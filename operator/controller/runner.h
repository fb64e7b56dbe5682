#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "operator/controller/informer.h"
#include "operator/controller/predicates.h"
#include "operator/controller/work_queue.h"
#include "operator/kube/client.h"
#include "runtime/base/clock.h"
#include "runtime/base/result.h"

namespace quern::control {

// What a reconcile wants next: nothing until something changes, or another look after a while.
struct Action {
  std::optional<std::chrono::nanoseconds> requeue_after;

  static Action Await() { return {}; }
  static Action RequeueAfter(std::chrono::nanoseconds delay) { return {delay}; }
};

// What a reconcile gets besides the key. Once `stop` is asked for it should begin no further write
// and return kCancelled, which is no failure: the key stays in the queue.
struct ReconcileContext {
  const Clock& clock;
  std::stop_token stop;
  int retries = 0;  // failures of this key in a row before this one
};

using ReconcileFunction = std::function<Result<Action>(const ObjectKey&, const ReconcileContext&)>;

// What to do after a failure: again with back-off, again after a fixed time, or not at all.
struct Requeue {
  enum class Kind { kBackoff, kAfter, kNever };
  Kind kind = Kind::kBackoff;
  std::chrono::nanoseconds after{0};
};
using ErrorPolicy = std::function<Requeue(const ObjectKey&, const Error&, int retries)>;

// Back-off for everything; a conflict is tried again at once (the store has news by then).
Requeue DefaultErrorPolicy(const ObjectKey& key, const Error& error, int retries);

struct RunnerOptions {
  std::string name;  // of the controller, in logs
  int workers = 2;
  WorkQueueOptions queue;
  WorkQueueHooks queue_hooks;
  ErrorPolicy error_policy = DefaultErrorPolicy;
  std::chrono::milliseconds resync_period{0};  // every object of the first source again; 0: never
  std::chrono::milliseconds sync_timeout{0};   // fail when the first lists take longer; 0: wait on
  // The reconcile's outcome, for metrics. Any thread.
  std::function<void(const ObjectKey&, const Result<Action>&, Seconds)> on_reconcile;
};

// How an informer stands, for /health and metrics.
struct InformerHealth {
  std::string resource;
  bool synced = false;
  std::chrono::nanoseconds since_contact{0};
  size_t objects = 0;
  std::string last_error;
};

// A controller: informers feed a queue, workers take keys from it and reconcile. Set it up (Watch,
// SetReconcile), then Run.
class Runner {
 public:
  // `client` and `clock` must outlive it.
  Runner(kube::Client& client, RunnerOptions options, const Clock& clock = RealClock());
  ~Runner();

  // A source of keys; the first is the primary one (its deletions forget the key's back-off, and it
  // is what resyncs go over). The informer lives as long as the runner; read its store.
  Informer& Watch(const kube::ResourceType& type, InformerOptions options,
                  KeyMapper mapper = OwnKey, Predicate predicate = ChangedMoreThanStatus);
  // An informer that wakes nobody: for its store alone.
  Informer& Cache(const kube::ResourceType& type, InformerOptions options);
  void SetReconcile(ReconcileFunction reconcile) { reconcile_ = std::move(reconcile); }

  // Informers first, then workers once all are synced, until `stop` is asked for. Waits for the
  // reconciles in work. Blocks. Errors: kDeadlineExceeded (sync_timeout), kInvalidArgument (no
  // reconcile function or nothing to watch).
  Status Run(std::stop_token stop);

  // Starts only the informers (they then run until `stop`, or the runner's end): so that a
  // candidate that is not the leader has warm stores. Run goes on from there.
  void StartInformers(std::stop_token stop);

  WorkQueue& queue() { return *queue_; }
  const WorkQueue& queue() const { return *queue_; }
  bool HasSynced() const;
  std::vector<InformerHealth> Health() const;

 private:
  struct Impl;

  void Worker(std::stop_token stop);
  void ReconcileOne(const ObjectKey& key, std::stop_token stop);
  void Resync();

  kube::Client& client_;
  const RunnerOptions options_;
  const Clock& clock_;
  ReconcileFunction reconcile_;
  std::unique_ptr<WorkQueue> queue_;
  std::vector<std::unique_ptr<Informer>> informers_;
  bool has_source_ = false;
  std::unique_ptr<Impl> impl_;
};

}  // namespace quern::control
