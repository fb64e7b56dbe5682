#include "operator/reconcilers/observe.h"

#include <algorithm>

#include "operator/api/json.h"
#include "operator/kube/object.h"
#include "operator/resources/children.h"

namespace quern::control {

const json* Observed::Child(size_t type, const std::string& name) const {
  for (const json& child : children[type]) {
    if (kube::ObjectName(child) == name) return &child;
  }
  return nullptr;
}

bool IsControlledBy(const json& object, const InferenceEndpoint& endpoint) {
  const auto owner = kube::ControllerOf(object);
  return owner && owner->uid == endpoint.uid && kube::ObjectNamespace(object) == endpoint.ns;
}

bool IsPodOf(const json& pod, const InferenceEndpoint& endpoint) {
  if (kube::ObjectNamespace(pod) != endpoint.ns) return false;
  const auto owner = kube::ControllerOf(pod);
  if (!owner || owner->kind != "ReplicaSet" || owner->api_version != "apps/v1") return false;
  // Named ENDPOINT-VARIANT-HASH. The variant may be one that the spec does not name any more.
  const std::string variant = kube::ObjectLabel(pod, kVariantLabel);
  const std::string deployment = endpoint.name + "-" + variant + "-";
  return !variant.empty() && owner->name.starts_with(deployment) &&
         owner->name.find('-', deployment.size()) == std::string::npos;
}

Result<Observed> Observe(const json& object, const Stores& stores, const ScalingBoard& board,
                         WallTime now) {
  Observed out;
  for (const char* key : {"apiVersion", "kind", "metadata"}) {
    if (const json* value = Find(object, {key})) out.object[key] = *value;
  }
  out.now = now;
  auto endpoint = ParseEndpoint(object);
  if (endpoint) {
    out.endpoint = std::move(*endpoint);
  } else {
    out.spec_error = Problem{"InvalidSpec", endpoint.error().message};
    QUERN_ASSIGN(out.endpoint, ParseEndpointMetadata(object));
  }
  for (const Store* store : stores.children) {
    SharedObjects& children = out.children.emplace_back();
    for (const auto& child : store->ListByOwner(out.endpoint.uid)) {
      if (IsControlledBy(*child, out.endpoint)) children.push_back(child);
    }
  }
  for (const auto& pod : stores.pods->ListByLabel(kEndpointLabel, out.endpoint.name)) {
    if (IsPodOf(*pod, out.endpoint)) out.pods.push_back(pod);
  }
  out.scaling = board.Get({out.endpoint.ns, out.endpoint.name}, out.endpoint.uid);
  return out;
}

int64_t DesiredReplicas(const Observed& observed) {
  const InferenceEndpoint& e = observed.endpoint;
  const auto limit = [&](int64_t replicas) {
    return std::clamp(replicas, e.scaling.min_replicas, e.scaling.max_replicas);
  };
  const bool external = e.scaling.mode == ScalingSpec::Mode::kExternal;
  if (external && e.external_replicas) return limit(*e.external_replicas);
  if (!external && observed.scaling && observed.scaling->decision)
    return limit(observed.scaling->decision->replicas);
  if (e.status.desired_replicas > 0) return limit(e.status.desired_replicas);
  for (const json& deployment : observed.deployments()) {
    if (const auto replicas = IntAt(deployment, {"spec", "replicas"})) return limit(*replicas);
  }
  return limit(0);
}

bool IsPodReady(const json& pod) {
  if (Find(pod, {"metadata", "deletionTimestamp"}) != nullptr) return false;
  for (const json& condition : ArrayAt(pod, {"status", "conditions"})) {
    if (StringAt(condition, {"type"}) == "Ready") return StringAt(condition, {"status"}) == "True";
  }
  return false;
}

}  // namespace quern::control
