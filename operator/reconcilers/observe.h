#pragma once

#include <optional>
#include <string>
#include <vector>

#include "operator/api/endpoint.h"
#include "operator/controller/store.h"
#include "operator/reconcilers/diagnose.h"
#include "operator/reconcilers/scaling_board.h"
#include "operator/reconcilers/shared_objects.h"

namespace quern::control {

// The informers' stores that a reconcile reads.
struct Stores {
  const Store* endpoints = nullptr;
  const Store* pods = nullptr;
  std::vector<const Store*> children;  // in the order of kChildTypes

  const Store& deployments() const { return *children.back(); }
};

// Everything that a reconcile decides on, read at one moment. No I/O behind it.
struct Observed {
  InferenceEndpoint endpoint;
  // Why nothing is done for it. The spec cannot be read (InvalidSpec): endpoint has only metadata
  // and status; or it asks for what the administrator does not allow.
  std::optional<Problem> spec_error;
  json object;                          // the endpoint's apiVersion, kind and metadata, for events
  std::vector<SharedObjects> children;  // owned objects, by kChildTypes
  SharedObjects pods;
  std::optional<ScalingReport> scaling;
  WallTime now;

  const SharedObjects& deployments() const { return children.back(); }
  // The owned object of that kind and name, or nullptr.
  const json* Child(size_t type, const std::string& name) const;
};

// Whether the object's controller is this very endpoint. Anybody can write our uid into an object
// of another namespace, or as one owner among several: such an object is not ours.
bool IsControlledBy(const json& object, const InferenceEndpoint& endpoint);

// Whether the pod was made for the endpoint: by a ReplicaSet of one of its Deployments. Labels
// alone do not say so: whoever may create pods could have one hold up a deletion, or be scaled on.
bool IsPodOf(const json& pod, const InferenceEndpoint& endpoint);

// `object` is the endpoint as last known. Error: kInvalidArgument when it has no name or namespace.
Result<Observed> Observe(const json& object, const Stores& stores, const ScalingBoard& board,
                         WallTime now);

// How many replicas to ask for: in external mode what was written from outside, else the last
// decision; after a restart, and before anybody has written, the one in the status, without that
// what the Deployment has, and minReplicas at first. Always within the limits.
int64_t DesiredReplicas(const Observed& observed);

// A pod's readiness as its conditions have it.
bool IsPodReady(const json& pod);

}  // namespace quern::control
