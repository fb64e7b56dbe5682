#include "operator/reconcilers/apply.h"

#include <algorithm>

#include "operator/api/json.h"
#include "operator/kube/object.h"
#include "operator/reconcilers/resource_types.h"
#include "operator/resources/children.h"
#include "operator/resources/foreign.h"
#include "operator/resources/spec_hash.h"

namespace quern::control {
namespace {

size_t TypeOf(const json& object) {
  const std::string kind = kube::ObjectKind(object);
  for (size_t i = 0; i < std::size(kChildTypes); ++i) {
    if (kChildTypes[i]->kind == kind) return i;
  }
  return 0;
}

constexpr size_t kDeployments = std::size(kChildKinds) - 1;

PlannedDelete DeleteOf(size_t type, const json& object) {
  return {type, kube::ObjectName(object), kube::ObjectUid(object)};
}

PlannedPatch PatchOf(size_t type, const json& object, json patch, PlannedPatch::Why why) {
  patch["metadata"]["uid"] = kube::ObjectUid(object);
  patch["metadata"]["resourceVersion"] = kube::ObjectResourceVersion(object);
  return {type, kube::ObjectName(object), std::move(patch), why};
}

int64_t ReadyReplicas(const json& deployment) {
  return IntAt(deployment, {"status", "readyReplicas"}).value_or(0);
}

// An object that has been made, and has the hash of what is wanted: is it still like that?
void PlanDrift(size_t type, const json& live, json wanted, ChildPlan& plan) {
  const bool covered = Covers(live, wanted);
  json patch = MergePatchBetween(live, WithoutForeign(live, wanted));
  if (!patch.empty()) {
    plan.patches.push_back(PatchOf(type, live, std::move(patch), PlannedPatch::Why::kDrift));
  }
  // Also where the patch alone would do: what it put back is the apply's to own.
  if (!covered) {
    plan.applies.push_back({type, std::move(wanted), PlannedApply::Why::kDrift});
  }
}

// Deployments of variants that are no more.
void PlanReplaced(const Observed& o, int64_t desired, ChildPlan& plan) {
  const InferenceEndpoint& e = o.endpoint;
  const json* successor = o.Child(kDeployments, DeploymentName(e, e.hardware[0]));
  const int64_t ready = successor == nullptr ? 0 : ReadyReplicas(*successor);
  if (ready == 0) return;  // nothing serves in their place yet
  int64_t needed = std::max<int64_t>(desired - ready, 0);
  for (const json& deployment : o.deployments()) {
    const bool wanted =
        std::any_of(e.hardware.begin(), e.hardware.end(), [&](const HardwareVariant& variant) {
          return DeploymentName(e, variant) == kube::ObjectName(deployment);
        });
    if (wanted || kube::IsBeingDeleted(deployment)) continue;
    const int64_t present = IntAt(deployment, {"spec", "replicas"}).value_or(1);
    // One that serves nothing has nothing to give up; its pods would only take the new ones' room.
    const int64_t kept = ReadyReplicas(deployment) == 0 ? 0 : std::min(present, needed);
    needed -= kept;
    if (kept == 0) {
      plan.deletes.push_back(DeleteOf(kDeployments, deployment));
    } else if (kept < present) {
      plan.patches.push_back(PatchOf(kDeployments, deployment, {{"spec", {{"replicas", kept}}}},
                                     PlannedPatch::Why::kReplaced));
    }
  }
}

}  // namespace

ChildPlan PlanChildren(const Observed& o, int64_t desired, const ResourceOptions& options) {
  ChildPlan plan;
  const InferenceEndpoint& e = o.endpoint;
  std::vector<int64_t> replicas(e.hardware.size(), 0);
  replicas[0] = desired;  // one variant, by the schema
  for (json& wanted : MakeChildren(e, replicas, options)) {
    const size_t type = TypeOf(wanted);
    const json* live = o.Child(type, kube::ObjectName(wanted));
    if (live != nullptr) wanted["metadata"]["uid"] = kube::ObjectUid(*live);
    if (live == nullptr) {
      plan.applies.push_back({type, std::move(wanted), PlannedApply::Why::kCreate});
    } else if (SpecHashOf(*live) != SpecHashOf(wanted)) {
      plan.applies.push_back({type, std::move(wanted), PlannedApply::Why::kChange});
    } else {
      PlanDrift(type, *live, std::move(wanted), plan);
    }
  }
  PlanReplaced(o, desired, plan);
  return plan;
}

DeletionPlan PlanDeletion(const Observed& o, std::chrono::seconds patience) {
  DeletionPlan plan;
  for (const json& deployment : o.deployments()) {
    if (!kube::IsBeingDeleted(deployment))
      plan.deletes.push_back(DeleteOf(kDeployments, deployment));
  }
  const auto since = ParseTime(o.endpoint.deletion_timestamp);
  const bool waiting = !o.pods.empty() || !o.deployments().empty();
  const bool over = since && o.now - *since > patience;
  if (waiting && !over) return plan;
  plan.gave_up = waiting;
  for (size_t type = 0; type < kDeployments; ++type) {
    for (const json& child : o.children[type]) plan.deletes.push_back(DeleteOf(type, child));
  }
  plan.done = true;
  return plan;
}

}  // namespace quern::control
