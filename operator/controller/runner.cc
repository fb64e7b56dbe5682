#include "operator/controller/runner.h"

#include <spdlog/spdlog.h>

#include <condition_variable>
#include <thread>

namespace quern::control {

// The threads. Informers keep theirs from StartInformers on, workers only while Run runs.
struct Runner::Impl {
  std::vector<std::jthread> informers;
  std::mutex mutex;
  std::condition_variable_any changed;
  bool started = false;
};

Requeue DefaultErrorPolicy(const ObjectKey&, const Error& error, int retries) {
  if (error.code == ErrorCode::kConflict && retries == 0) return {Requeue::Kind::kAfter, {}};
  return {};
}

Runner::Runner(kube::Client& client, RunnerOptions options, const Clock& clock)
    : client_(client),
      options_(std::move(options)),
      clock_(clock),
      queue_(std::make_unique<WorkQueue>(options_.queue, clock, options_.queue_hooks)),
      impl_(std::make_unique<Impl>()) {}

Runner::~Runner() {
  queue_->ShutDown();
  for (std::jthread& thread : impl_->informers) thread.request_stop();
  impl_->informers.clear();  // joins: informers must not outlive what they call
}

Informer& Runner::Watch(const kube::ResourceType& type, InformerOptions options, KeyMapper mapper,
                        Predicate predicate) {
  Informer& informer = Cache(type, std::move(options));
  const bool primary = !has_source_;
  if (primary) {
    // Resyncs go over the first informer that wakes somebody.
    std::swap(informers_.front(), informers_.back());
    has_source_ = true;
  }
  informer.AddListener([this, primary, mapper = std::move(mapper),
                        predicate = std::move(predicate)](const Change& change) {
    const auto key = mapper(change);
    if (!key) return;
    if (primary && !change.after) queue_->Forget(*key);
    if (predicate(change) && !queue_->Add(*key)) {
      spdlog::error("{}: the work queue is full or shut down; {} was not taken", options_.name,
                    key->ToString());
    }
  });
  return informer;
}

Informer& Runner::Cache(const kube::ResourceType& type, InformerOptions options) {
  informers_.push_back(std::make_unique<Informer>(client_, type, std::move(options), clock_));
  return *informers_.back();
}

void Runner::StartInformers(std::stop_token stop) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (impl_->started) return;
    impl_->started = true;
  }
  for (const auto& informer : informers_) {
    impl_->informers.emplace_back([&informer = *informer, stop](std::stop_token own) {
      std::stop_source either;
      const std::stop_callback on_outer(stop, [&] { either.request_stop(); });
      const std::stop_callback on_own(own, [&] { either.request_stop(); });
      informer.Run(either.get_token());
    });
  }
}

Status Runner::Run(std::stop_token stop) {
  if (!reconcile_) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: no reconcile function is set",
                     options_.name);
  }
  if (!has_source_) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: nothing is watched", options_.name);
  }
  StartInformers(stop);
  const SteadyTime begin = std::chrono::steady_clock::now();
  while (!HasSynced() && !stop.stop_requested()) {
    std::unique_lock lock(impl_->mutex);
    impl_->changed.wait_for(lock, stop, std::chrono::milliseconds(20), [] { return false; });
    if (options_.sync_timeout.count() == 0) continue;
    if (std::chrono::steady_clock::now() - begin > options_.sync_timeout && !HasSynced()) {
      std::string missing;
      for (const InformerHealth& health : Health()) {
        if (!health.synced) missing += " " + health.resource + " (" + health.last_error + ")";
      }
      return MakeError(ErrorCode::kDeadlineExceeded, "{}: not listed within {} ms:{}",
                       options_.name, options_.sync_timeout.count(), missing);
    }
  }
  if (stop.stop_requested()) return {};
  spdlog::info("{}: informers are synced; {} workers start", options_.name, options_.workers);
  std::vector<std::jthread> workers;
  for (int i = 0; i < options_.workers; ++i) workers.emplace_back([this, stop] { Worker(stop); });
  std::unique_lock lock(impl_->mutex);
  if (options_.resync_period.count() > 0) {
    while (!stop.stop_requested()) {
      impl_->changed.wait_for(lock, stop, options_.resync_period, [] { return false; });
      if (!stop.stop_requested()) Resync();
    }
  } else {
    impl_->changed.wait(lock, stop, [] { return false; });
  }
  return {};  // the workers are joined here, each after the reconcile it has in work
}

void Runner::Worker(std::stop_token stop) {
  while (const auto key = queue_->Get(stop)) {
    ReconcileOne(*key, stop);
    queue_->Done(*key);
  }
}

void Runner::ReconcileOne(const ObjectKey& key, std::stop_token stop) {
  const int retries = queue_->Retries(key);
  const SteadyTime begin = clock_.Now();
  Result<Action> result = MakeError(ErrorCode::kInternal, "no result");
  try {
    result = reconcile_(key, ReconcileContext{clock_, stop, retries});
  } catch (const std::exception& error) {  // a bug; one object's must not end all the others' care
    result = MakeError(ErrorCode::kInternal, "reconcile threw: {}", error.what());
  }
  if (!result.ok() && result.error().code == ErrorCode::kCancelled && stop.stop_requested()) {
    queue_->Add(key);  // no failure: whoever works next goes on with it
    spdlog::info("{}: {}: {}", options_.name, key.ToString(), result.error().message);
    return;
  }
  if (options_.on_reconcile) options_.on_reconcile(key, result, clock_.Now() - begin);
  if (result.ok()) {
    queue_->Forget(key);
    if (result->requeue_after) queue_->AddAfter(key, *result->requeue_after);
    return;
  }
  const Requeue requeue = options_.error_policy(key, result.error(), retries);
  switch (requeue.kind) {
    case Requeue::Kind::kBackoff: {
      const auto delay = queue_->AddRateLimited(key);
      spdlog::warn("{}: {}: {}; again in {:.3f} s", options_.name, key.ToString(),
                   result.error().message, Seconds(delay).count());
      break;
    }
    case Requeue::Kind::kAfter:
      queue_->CountRetry(key);
      queue_->AddAfter(key, requeue.after);
      spdlog::info("{}: {}: {}; again in {:.3f} s", options_.name, key.ToString(),
                   result.error().message, Seconds(requeue.after).count());
      break;
    case Requeue::Kind::kNever:
      queue_->Forget(key);
      spdlog::error("{}: {}: {}; not tried again until it changes", options_.name, key.ToString(),
                    result.error().message);
      break;
  }
}

void Runner::Resync() {
  for (const ObjectPtr& object : informers_.front()->store().List()) {
    queue_->Add(kube::KeyOf(*object));
  }
}

bool Runner::HasSynced() const {
  for (const auto& informer : informers_) {
    if (!informer->HasSynced()) return false;
  }
  return true;
}

std::vector<InformerHealth> Runner::Health() const {
  std::vector<InformerHealth> out;
  for (const auto& informer : informers_) {
    out.push_back({informer->type().plural, informer->HasSynced(), informer->SinceContact(),
                   informer->store().size(), informer->LastError()});
  }
  return out;
}

}  // namespace quern::control
