#pragma once

#include <string>

#include "operator/api/endpoint.h"

namespace quern::control {

// The labels of every object that belongs to the endpoint.
nlohmann::json OwnedLabels(const InferenceEndpoint& endpoint);

// The labels that select the pods of all its variants; a part of OwnedLabels that never changes.
nlohmann::json PodSelector(const InferenceEndpoint& endpoint);

// PodSelector as a label selector's text, as lists and the scale subresource want it.
std::string PodSelectorText(const std::string& endpoint_name);

// {name, namespace, labels, ownerReferences}: what every owned object's metadata begins with.
nlohmann::json OwnedMetadata(const InferenceEndpoint& endpoint, const std::string& name);

}  // namespace quern::control
