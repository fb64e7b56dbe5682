#include "operator/resources/children.h"
#include "operator/resources/labels.h"
#include "operator/resources/spec_hash.h"

namespace quern::control {

using nlohmann::json;

json MakeNetworkPolicy(const InferenceEndpoint& e, const ResourceOptions& options) {
  json scrapers = json::array(
      {{{"namespaceSelector",
         {{"matchLabels", {{"kubernetes.io/metadata.name", options.operator_namespace}}}}}},
       {{"namespaceSelector", json::object()},
        {"podSelector", {{"matchLabels", {{"app.kubernetes.io/name", "prometheus"}}}}}}});
  const auto port = [](int number) {
    return json::array({{{"port", number}, {"protocol", "TCP"}}});
  };
  json policy = {{"apiVersion", "networking.k8s.io/v1"},
                 {"kind", "NetworkPolicy"},
                 {"metadata", OwnedMetadata(e, e.name)},
                 {"spec",
                  {{"podSelector", {{"matchLabels", PodSelector(e)}}},
                   {"policyTypes", {"Ingress", "Egress"}},
                   {"ingress", json::array({{{"ports", port(kPublicPort)}},
                                            {{"from", scrapers}, {"ports", port(kAdminPort)}}})}}}};
  AddSpecHash(policy);
  return policy;
}

}  // namespace quern::control
