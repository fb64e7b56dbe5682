#pragma once

#include "operator/api/endpoint.h"
#include "operator/kube/client.h"

namespace quern::control {

inline const kube::ResourceType kEndpointType{kGroup, kVersion, kKind, kPlural};
inline const kube::ResourceType kDeploymentType{"apps", "v1", "Deployment", "deployments"};
inline const kube::ResourceType kServiceType{"", "v1", "Service", "services"};
inline const kube::ResourceType kServiceAccountType{"", "v1", "ServiceAccount", "serviceaccounts"};
inline const kube::ResourceType kNetworkPolicyType{"networking.k8s.io", "v1", "NetworkPolicy",
                                                   "networkpolicies"};
inline const kube::ResourceType kPodDisruptionBudgetType{"policy", "v1", "PodDisruptionBudget",
                                                         "poddisruptionbudgets"};
inline const kube::ResourceType kPodType{"", "v1", "Pod", "pods"};

// The kinds an endpoint owns, in the order in which they are made (that of MakeChildren).
inline const kube::ResourceType* const kChildTypes[] = {
    &kServiceAccountType, &kServiceType, &kNetworkPolicyType, &kPodDisruptionBudgetType,
    &kDeploymentType};

// What the operator's informers select of those kinds, and of pods.
inline constexpr char kManagedSelector[] = "app.kubernetes.io/managed-by=quern-operator";

}  // namespace quern::control
