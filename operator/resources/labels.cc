#include "operator/resources/labels.h"

#include <fmt/format.h>

namespace quern::control {

nlohmann::json OwnedLabels(const InferenceEndpoint& e) {
  return {{"app.kubernetes.io/name", "quern-serve"},
          {"app.kubernetes.io/instance", e.name},
          {"app.kubernetes.io/managed-by", "quern-operator"},
          {kEndpointLabel, e.name}};
}

nlohmann::json PodSelector(const InferenceEndpoint& e) {
  return {{"app.kubernetes.io/name", "quern-serve"}, {kEndpointLabel, e.name}};
}

std::string PodSelectorText(const std::string& endpoint_name) {
  return fmt::format("app.kubernetes.io/name=quern-serve,{}={}", kEndpointLabel, endpoint_name);
}

nlohmann::json OwnedMetadata(const InferenceEndpoint& e, const std::string& name) {
  nlohmann::json owner = {{"apiVersion", kApiVersion},
                          {"kind", kKind},
                          {"name", e.name},
                          {"uid", e.uid},
                          {"controller", true},
                          {"blockOwnerDeletion", true}};
  return {{"name", name},
          {"namespace", e.ns},
          {"labels", OwnedLabels(e)},
          {"ownerReferences", nlohmann::json::array({std::move(owner)})}};
}

}  // namespace quern::control
