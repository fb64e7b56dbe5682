#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "operator/api/endpoint.h"
#include "operator/resources/options.h"

namespace quern::control {

// Ports of the runtime's container.
inline constexpr int kPublicPort = 8000;
inline constexpr int kAdminPort = 9090;
inline constexpr char kContainerName[] = "quern-serve";

// Every builder is pure and returns the whole object as it is applied: apiVersion, kind, metadata
// with labels, owner reference and spec hash, and the fields that the operator owns.

// "smollm2-cpu": at most 40 + 1 + 20 characters, by the schema.
std::string DeploymentName(const InferenceEndpoint& endpoint, const HardwareVariant& variant);

// What the pods get to stop in: from the drain timeout, with time for what comes before and after.
std::chrono::seconds GracePeriod(std::chrono::seconds drain_timeout);

// The variant's Deployment with `replicas` replicas.
nlohmann::json MakeDeployment(const InferenceEndpoint& endpoint, const HardwareVariant& variant,
                              int64_t replicas, const ResourceOptions& options);

// Port 80 to the public port of every ready pod. The administrative port is not in it.
nlohmann::json MakeService(const InferenceEndpoint& endpoint);

// An account without rights, so that pods do not run under the namespace's default one.
nlohmann::json MakeServiceAccount(const InferenceEndpoint& endpoint);

// At most one replica at a time is taken down by a node's drain.
nlohmann::json MakePodDisruptionBudget(const InferenceEndpoint& endpoint);

// In: the public port from anywhere; the administrative port from the operator's namespace and from
// pods labelled app.kubernetes.io/name=prometheus. Out: nothing, as the model comes from a volume.
nlohmann::json MakeNetworkPolicy(const InferenceEndpoint& endpoint, const ResourceOptions& options);

// "http://NAME.NAMESPACE.svc.DOMAIN".
std::string EndpointUrl(const InferenceEndpoint& endpoint, const ResourceOptions& options);

// The kinds that an endpoint owns, in the order in which they are made.
struct ChildKind {
  const char* api_version;
  const char* kind;
};
inline constexpr ChildKind kChildKinds[] = {{"v1", "ServiceAccount"},
                                            {"v1", "Service"},
                                            {"networking.k8s.io/v1", "NetworkPolicy"},
                                            {"policy/v1", "PodDisruptionBudget"},
                                            {"apps/v1", "Deployment"}};

// All of the endpoint's objects in the order of kChildKinds; `replicas[i]` belongs to
// endpoint.hardware[i].
std::vector<nlohmann::json> MakeChildren(const InferenceEndpoint& endpoint,
                                         const std::vector<int64_t>& replicas,
                                         const ResourceOptions& options);

}  // namespace quern::control
