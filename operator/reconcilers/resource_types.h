#pragma once

#include "operator/api/endpoint.h"
#include "operator/kube/client.h"
#include "operator/kube/kept_metadata.h"
#include "operator/resources/spec_hash.h"

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

// What the operator reads of objects' metadata, of an endpoint's own labels and annotations
// nothing: all that it writes to its objects, so that a difference is seen, and no more.
inline kube::KeptMetadata ReadMetadata() {
  kube::KeptMetadata keep;
  keep.labels = {"app.kubernetes.io/name", "app.kubernetes.io/instance",
                 "app.kubernetes.io/managed-by", kEndpointLabel, kVariantLabel};
  keep.annotations = {kSpecHashAnnotation};
  keep.list_entries = kMaxFinalizers + 1;
  return keep;
}

}  // namespace quern::control
