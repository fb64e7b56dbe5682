#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "operator/controller/event_recorder.h"
#include "operator/controller/runner.h"
#include "operator/kube/client.h"
#include "operator/metrics/operator_metrics.h"
#include "operator/reconcilers/apply.h"
#include "operator/reconcilers/observe.h"
#include "operator/reconcilers/status_plan.h"
#include "operator/reconcilers/writes.h"
#include "operator/resources/options.h"

namespace quern::control {

// Makes the cluster what an InferenceEndpoint says: observe -> plan -> apply -> status. The plans
// are pure; this class alone writes, and every write stands being repeated, so it may be killed
// between any two of them. Thread-safe for different keys, which the work queue sees to.
class EndpointReconciler {
 public:
  // All must outlive it. `stores` are the informers'.
  EndpointReconciler(kube::Client& client, Stores stores, ScalingBoard& board,
                     EventRecorder& events, OperatorMetrics& metrics, ResourceOptions options);

  // Errors are those of API calls; the runner tries again with back-off.
  Result<Action> Reconcile(const ObjectKey& key, const ReconcileContext& context);

  // The endpoint as last known: the store's, or what our own last write to it returned, if that is
  // newer.
  ObjectPtr Latest(const ObjectKey& key);

 private:
  Result<Action> ReconcileLive(Writes& writes, Observed observed);
  Result<Action> ReconcileDeletion(Writes& writes, const Observed& observed);
  // What an endpoint needs before anything is made for it: the finalizer, and in external mode a
  // first number of replicas, without which the scale subresource cannot be read. One write at
  // most; whoever scales it writes spec.replicas from then on.
  Status Prepare(Writes& writes, Observed& observed);
  Status DropFinalizer(Writes& writes, const InferenceEndpoint& endpoint);
  // Applies what is to be applied; what the API server refuses for good comes back as problems.
  Status ApplyChildren(Writes& writes, const Observed& observed, const ChildPlan& plan,
                       std::vector<Problem>& refused);
  Status PatchChildren(Writes& writes, const Observed& observed, const ChildPlan& plan,
                       std::vector<Problem>& refused);
  // One apply. An object that is not known to be ours is only ever created, never taken over: where
  // another one has its name, the error is kAlreadyExists.
  Result<json> ApplyChild(Writes& writes, const InferenceEndpoint& endpoint,
                          const PlannedApply& planned);
  Status Delete(Writes& writes, const InferenceEndpoint& endpoint, const PlannedDelete& planned);
  // Writes the status if it differs, tells the events, and makes `observed` know of it.
  Status WriteStatus(Writes& writes, Observed& observed, const StatusPlan& plan);
  // The API server's answer to a write of the endpoint, until the store has heard of it.
  void Remember(InferenceEndpoint& endpoint, json written);
  void TellDrift(const Observed& observed, const std::string& kind, const std::string& name);
  void Report(const Observed& observed, int64_t desired);

  kube::Client& client_;
  const Stores stores_;
  ScalingBoard& board_;
  EventRecorder& events_;
  OperatorMetrics& metrics_;
  const ResourceOptions options_;
  std::mutex mutex_;
  std::map<ObjectKey, ObjectPtr> written_;  // what Remember was given
};

}  // namespace quern::control
