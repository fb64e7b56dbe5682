#include "operator/reconcilers/endpoint_reconciler.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "operator/api/json.h"
#include "operator/api/quantity.h"
#include "operator/reconcilers/resource_types.h"
#include "operator/resources/children.h"
#include "operator/resources/image_policy.h"

namespace quern::control {
namespace {

using namespace std::chrono_literals;  // NOLINT: 30s reads better

// Beyond the pods' own grace period: time for the kubelet and the garbage collector.
constexpr std::chrono::seconds kDeletionSlack = 90s;

// Resource versions of one resource type grow; 0 when it is no number.
uint64_t VersionOf(const json& object) {
  const std::string text = kube::ObjectResourceVersion(object);
  uint64_t version = 0;
  std::from_chars(text.data(), text.data() + text.size(), version);
  return version;
}

// Whether trying again would not help until something else changes.
bool IsRefusal(ErrorCode code) {
  return code == ErrorCode::kInvalidArgument || code == ErrorCode::kPermissionDenied ||
         code == ErrorCode::kUnsupported;
}

const char* WhyName(PlannedApply::Why why) {
  switch (why) {
    case PlannedApply::Why::kCreate:
      return "created";
    case PlannedApply::Why::kChange:
      return "changed";
    case PlannedApply::Why::kDrift:
      return "drift";
  }
  return "unknown";
}

bool HasFinalizer(const InferenceEndpoint& e) {
  return std::find(e.finalizers.begin(), e.finalizers.end(), kFinalizer) != e.finalizers.end();
}

// Whether what follows the patch is a part of the same correction, and has been told of.
bool IsPatched(const ChildPlan& plan, size_t type, const std::string& name) {
  return std::any_of(plan.patches.begin(), plan.patches.end(), [&](const PlannedPatch& patch) {
    return patch.type == type && patch.name == name && patch.why == PlannedPatch::Why::kDrift;
  });
}

}  // namespace

EndpointReconciler::EndpointReconciler(kube::Client& client, Stores stores, ScalingBoard& board,
                                       EventRecorder& events, OperatorMetrics& metrics,
                                       ResourceOptions options)
    : client_(client),
      stores_(std::move(stores)),
      board_(board),
      events_(events),
      metrics_(metrics),
      options_(std::move(options)) {}

ObjectPtr EndpointReconciler::Latest(const ObjectKey& key) {
  auto stored = stores_.endpoints->Get(key);
  std::lock_guard lock(mutex_);
  const auto it = written_.find(key);
  if (!stored) {
    if (it != written_.end()) written_.erase(it);
    return nullptr;
  }
  if (it == written_.end()) return stored;
  const bool same = kube::ObjectUid(*it->second) == kube::ObjectUid(*stored);
  if (!same || VersionOf(*stored) >= VersionOf(*it->second)) {
    written_.erase(it);
    return stored;
  }
  return it->second;
}

Result<Action> EndpointReconciler::Reconcile(const ObjectKey& key,
                                             const ReconcileContext& context) {
  const auto object = Latest(key);
  if (!object) {
    board_.Forget(key);
    metrics_.ForgetEndpoint(key.ns, key.name);
    return Action::Await();
  }
  QUERN_ASSIGN(Observed observed, Observe(*object, stores_, board_, context.clock.WallNow()));
  Writes writes(client_, context.stop);
  if (observed.endpoint.deleting()) return ReconcileDeletion(writes, observed);
  if (!observed.spec_error) {
    const Status allowed = CheckImage(observed.endpoint, options_);
    const Status computes = CheckCudaImage(observed.endpoint, options_);
    if (!allowed) {
      observed.spec_error = Problem{"ImageNotAllowed", allowed.error().message};
    } else if (!computes) {
      observed.spec_error = Problem{"ImageWithoutCuda", computes.error().message};
    }
  }
  if (observed.spec_error) {
    spdlog::warn("endpoint={} {}: {}", key.ToString(), observed.spec_error->reason,
                 observed.spec_error->message);
    const int64_t desired = observed.endpoint.status.desired_replicas;
    QUERN_TRY(WriteStatus(writes, observed, PlanStatus(observed, desired, {}, options_)));
    return Action::Await();
  }
  return ReconcileLive(writes, std::move(observed));
}

Result<Action> EndpointReconciler::ReconcileLive(Writes& writes, Observed observed) {
  QUERN_TRY(Prepare(writes, observed));
  const InferenceEndpoint& e = observed.endpoint;
  const int64_t desired = DesiredReplicas(observed);
  // The decision is written before it is carried out: killed in between, the next process goes on
  // from it. Conditions wait until it is known what the API server refuses.
  if (e.status.desired_replicas > 0 && e.status.desired_replicas != desired) {
    QUERN_TRY(WriteStatus(writes, observed, PlanDecision(observed, desired)));
  }
  const ChildPlan plan = PlanChildren(observed, desired, options_);
  std::vector<Problem> refused;
  QUERN_TRY(PatchChildren(writes, observed, plan, refused));
  QUERN_TRY(ApplyChildren(writes, observed, plan, refused));
  for (const PlannedDelete& planned : plan.deletes) QUERN_TRY(Delete(writes, e, planned));
  QUERN_TRY(WriteStatus(writes, observed, PlanStatus(observed, desired, refused, options_)));
  Report(observed, desired);
  // What was refused may be allowed later (a quota, an admission policy), and nobody would tell.
  return Action::RequeueAfter(refused.empty() ? kFigureInterval : 60s);
}

Status EndpointReconciler::Prepare(Writes& writes, Observed& observed) {
  InferenceEndpoint& e = observed.endpoint;
  json patch = json::object();
  if (!HasFinalizer(e)) {
    json finalizers = e.finalizers;
    finalizers.push_back(kFinalizer);
    patch["metadata"]["finalizers"] = std::move(finalizers);
  }
  if (e.scaling.mode == ScalingSpec::Mode::kExternal && !e.external_replicas) {
    e.external_replicas = DesiredReplicas(observed);
    patch["spec"]["replicas"] = *e.external_replicas;
  }
  if (e.scaling.mode == ScalingSpec::Mode::kBuiltin && e.external_replicas) {
    e.external_replicas.reset();  // left over from external mode: no apply would take it out
    patch["spec"]["replicas"] = nullptr;
  }
  if (patch.empty()) return {};
  // With its version: a number that was written meanwhile stays.
  patch["metadata"]["resourceVersion"] = e.resource_version;
  patch["metadata"]["uid"] = e.uid;
  QUERN_ASSIGN(json written, writes.MergePatch(kEndpointType, e.ns, e.name, patch));
  e.generation = kube::ObjectGeneration(written);
  Remember(e, std::move(written));
  return {};
}

Status EndpointReconciler::DropFinalizer(Writes& writes, const InferenceEndpoint& e) {
  json finalizers = json::array();
  for (const std::string& name : e.finalizers) {
    if (name != kFinalizer) finalizers.push_back(name);
  }
  const json patch = {
      {"metadata",
       {{"finalizers", finalizers}, {"resourceVersion", e.resource_version}, {"uid", e.uid}}}};
  auto patched = writes.MergePatch(kEndpointType, e.ns, e.name, patch);
  if (!patched && patched.error().code != ErrorCode::kNotFound) return std::move(patched).error();
  return {};
}

Status EndpointReconciler::PatchChildren(Writes& writes, const Observed& observed,
                                         const ChildPlan& plan, std::vector<Problem>& refused) {
  const InferenceEndpoint& e = observed.endpoint;
  for (const PlannedPatch& planned : plan.patches) {
    const kube::ResourceType& type = *kChildTypes[planned.type];
    auto patched = writes.MergePatch(type, e.ns, planned.name, planned.patch);
    if (!patched) {
      if (!IsRefusal(patched.error().code)) return std::move(patched).error();
      spdlog::warn("endpoint={} {}", e.key(), patched.error().message);
      refused.push_back({"ApplyRefused", patched.error().message});
      continue;
    }
    // An admission webhook may have put back what was taken away.
    const json& version = planned.patch["metadata"]["resourceVersion"];
    if (version == kube::ObjectResourceVersion(*patched)) continue;
    const bool drift = planned.why == PlannedPatch::Why::kDrift;
    metrics_.Applied(type.kind, drift ? "drift" : "changed");
    spdlog::info("endpoint={} {} {} {}", e.key(), drift ? "drift" : "being replaced", type.kind,
                 planned.name);
    if (drift) TellDrift(observed, type.kind, planned.name);
  }
  return {};
}

Status EndpointReconciler::ApplyChildren(Writes& writes, const Observed& observed,
                                         const ChildPlan& plan, std::vector<Problem>& refused) {
  const InferenceEndpoint& e = observed.endpoint;
  for (const PlannedApply& planned : plan.applies) {
    const kube::ResourceType& type = *kChildTypes[planned.type];
    const std::string name = kube::ObjectName(planned.object);
    const json* before = observed.Child(planned.type, name);
    auto applied = ApplyChild(writes, e, planned);
    if (!applied && applied.error().code == ErrorCode::kAlreadyExists) {
      spdlog::warn("endpoint={} {}", e.key(), applied.error().message);
      refused.push_back({"NameTaken", applied.error().message});
      return {};  // what follows would use the foreign object: its account, its policy
    }
    if (!applied) {
      if (!IsRefusal(applied.error().code)) return std::move(applied).error();
      spdlog::warn("endpoint={} {}", e.key(), applied.error().message);
      refused.push_back({"ApplyRefused", applied.error().message});
      continue;
    }
    // A difference that only looks like one changes nothing.
    if (before != nullptr &&
        kube::ObjectResourceVersion(*before) == kube::ObjectResourceVersion(*applied))
      continue;
    if (planned.why == PlannedApply::Why::kDrift && IsPatched(plan, planned.type, name)) continue;
    metrics_.Applied(type.kind, WhyName(planned.why));
    spdlog::info("endpoint={} {} {} {}", e.key(), WhyName(planned.why), type.kind, name);
    if (planned.why == PlannedApply::Why::kDrift) {
      TellDrift(observed, type.kind, name);
    } else if (planned.why == PlannedApply::Why::kCreate) {
      events_.Normal(observed.object, "Created", "Apply", fmt::format("{} {}", type.kind, name));
    }
  }
  return {};
}

void EndpointReconciler::TellDrift(const Observed& observed, const std::string& kind,
                                   const std::string& name) {
  events_.Normal(observed.object, "DriftCorrected", "Apply",
                 fmt::format("{} {} was changed by somebody else; it is as the endpoint says again",
                             kind, name));
}

Result<json> EndpointReconciler::ApplyChild(Writes& writes, const InferenceEndpoint& e,
                                            const PlannedApply& planned) {
  const kube::ResourceType& type = *kChildTypes[planned.type];
  kube::ApplyOptions options;
  options.field_manager = kFieldOwner;
  options.must_create = planned.why == PlannedApply::Why::kCreate;
  auto applied = writes.Apply(type, e.ns, planned.object, options);
  if (applied) return applied;
  if (!options.must_create) {
    // The one that we knew has made way for another: look again, with stores that know of it.
    const bool swapped = applied.error().code == ErrorCode::kInvalidArgument &&
                         applied.error().message.find("metadata.uid") != std::string::npos;
    if (swapped) return Error{ErrorCode::kConflict, applied.error().message};
    return applied;
  }
  if (applied.error().code != ErrorCode::kConflict) return applied;
  const std::string name = kube::ObjectName(planned.object);
  QUERN_ASSIGN(const json live, client_.Get(type, e.ns, name));
  if (!IsControlledBy(live, e)) {
    return MakeError(ErrorCode::kAlreadyExists,
                     "{} {}/{} exists and is not this endpoint's: it is left as it is; delete it, "
                     "or give the endpoint another name",
                     type.kind, e.ns, name);
  }
  json ours = planned.object;  // made by us, and the store does not know of it (yet)
  ours["metadata"]["uid"] = kube::ObjectUid(live);
  options.must_create = false;
  return writes.Apply(type, e.ns, ours, options);
}

Status EndpointReconciler::Delete(Writes& writes, const InferenceEndpoint& e,
                                  const PlannedDelete& planned) {
  const kube::ResourceType& type = *kChildTypes[planned.type];
  kube::DeleteOptions options;
  options.uid = planned.uid;
  auto deleted = writes.Delete(type, e.ns, planned.name, options);
  // Gone, or another one by the same name: both are as wanted.
  if (!deleted && deleted.error().code != ErrorCode::kNotFound &&
      deleted.error().code != ErrorCode::kConflict) {
    return deleted;
  }
  spdlog::info("endpoint={} deleted {} {}", e.key(), type.kind, planned.name);
  return {};
}

Status EndpointReconciler::WriteStatus(Writes& writes, Observed& observed, const StatusPlan& plan) {
  InferenceEndpoint& e = observed.endpoint;
  if (plan.status == e.status) return {};
  const json object = {{"apiVersion", kApiVersion},
                       {"kind", kKind},
                       {"metadata", {{"name", e.name}, {"namespace", e.ns}, {"uid", e.uid}}},
                       {"status", ToJson(plan.status)}};
  kube::ApplyOptions options;
  options.field_manager = kFieldOwner;
  options.subresource = "status";
  auto written = writes.Apply(kEndpointType, e.ns, object, options);
  if (!written) return std::move(written).error();
  for (const PlannedEvent& event : plan.events) {
    spdlog::log(event.warning ? spdlog::level::warn : spdlog::level::info, "endpoint={} {}: {}",
                e.key(), event.reason, event.note);
    if (event.warning) {
      events_.Warning(observed.object, event.reason, "Reconcile", event.note);
    } else {
      events_.Normal(observed.object, event.reason, "Reconcile", event.note);
    }
  }
  e.status = plan.status;
  Remember(e, std::move(*written));
  return {};
}

void EndpointReconciler::Remember(InferenceEndpoint& e, json written) {
  e.resource_version = kube::ObjectResourceVersion(written);
  std::lock_guard lock(mutex_);
  written_[{e.ns, e.name}] = std::make_shared<const json>(std::move(written));
}

Result<Action> EndpointReconciler::ReconcileDeletion(Writes& writes, const Observed& observed) {
  const InferenceEndpoint& e = observed.endpoint;
  board_.Forget({e.ns, e.name});
  metrics_.ForgetEndpoint(e.ns, e.name);
  if (!HasFinalizer(e)) return Action::Await();
  // The longest grace period: the spec's, or that which a pod of an earlier spec still has. A pod's
  // own can be anybody's, so it counts up to what a spec may ask for.
  std::chrono::seconds grace =
      GracePeriod(observed.spec_error ? kMaxDrainTimeout : e.drain_timeout);
  for (const json& pod : observed.pods) {
    const std::chrono::seconds own(
        IntAt(pod, {"spec", "terminationGracePeriodSeconds"}).value_or(0));
    grace = std::max(grace, std::min(own, GracePeriod(kMaxDrainTimeout)));
  }
  const DeletionPlan plan = PlanDeletion(observed, grace + kDeletionSlack);
  for (const PlannedDelete& planned : plan.deletes) QUERN_TRY(Delete(writes, e, planned));
  if (!plan.done) return Action::RequeueAfter(5s);
  if (plan.gave_up) {
    events_.Warning(
        observed.object, "PodsLeftBehind", "Delete",
        fmt::format(
            "{} pods are still there after their grace period; Kubernetes removes them when it can",
            observed.pods.size()));
  }
  QUERN_TRY(DropFinalizer(writes, e));
  spdlog::info("endpoint={} deleted", e.key());
  return Action::Await();
}

void EndpointReconciler::Report(const Observed& observed, int64_t desired) {
  const EndpointStatus& status = observed.endpoint.status;
  const double tokens =
      status.performance
          ? ParseDecimal(status.performance->tokens_per_second).value_or(std::nan(""))
          : std::nan("");
  metrics_.Endpoint(observed.endpoint.ns, observed.endpoint.name, desired, status.replicas,
                    status.ready_replicas, tokens);
}

}  // namespace quern::control
