#pragma once

#include <string>
#include <vector>

#include "operator/reconcilers/observe.h"
#include "operator/resources/options.h"

namespace quern::control {

// An object to be applied, and why: it is missing, it should be other than it was, or somebody
// changed it.
struct PlannedApply {
  enum class Why { kCreate, kChange, kDrift };
  size_t type = 0;  // in kChildTypes
  json object;      // with the uid of the one that is there, so that no other can take its place
  Why why = Why::kCreate;
};

// A merge patch for what an apply cannot do: to take away what somebody added, or to change one
// field of an object that is not wanted any more. It names the uid and the version that it is for,
// so that it fails (kConflict) where the object has changed since.
struct PlannedPatch {
  enum class Why { kDrift, kReplaced };
  size_t type = 0;
  std::string name;
  json patch;
  Why why = Why::kDrift;
};

struct PlannedDelete {
  size_t type = 0;
  std::string name;
  std::string uid;
};

// What has to be done to the endpoint's objects. Pure.
struct ChildPlan {
  std::vector<PlannedPatch> patches;  // first
  std::vector<PlannedApply> applies;
  std::vector<PlannedDelete> deletes;  // Deployments of variants that are no more
};

// Objects that are as they should be are left alone. A Deployment of a variant that is no more
// gives up its replicas one by one as those of the new one become ready, and goes when none is
// needed: so there are always as many as before, and it takes room for one more at least.
ChildPlan PlanChildren(const Observed& observed, int64_t desired, const ResourceOptions& options);

// What deletion still has to do. First the Deployments go, and with them the pods, which drain;
// when no pod is left, or `patience` is over, everything else.
struct DeletionPlan {
  std::vector<PlannedDelete> deletes;
  bool done = false;     // nothing is left to wait for: the finalizer may go
  bool gave_up = false;  // pods were left behind
};
DeletionPlan PlanDeletion(const Observed& observed, std::chrono::seconds patience);

}  // namespace quern::control
