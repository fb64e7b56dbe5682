#include "operator/resources/children.h"

#include <fmt/format.h>

#include <cassert>

#include "operator/resources/labels.h"
#include "operator/resources/spec_hash.h"

namespace quern::control {

using nlohmann::json;

std::string DeploymentName(const InferenceEndpoint& endpoint, const HardwareVariant& variant) {
  return endpoint.name + "-" + variant.name;
}

json MakeService(const InferenceEndpoint& e) {
  json service = {{"apiVersion", "v1"},
                  {"kind", "Service"},
                  {"metadata", OwnedMetadata(e, e.name)},
                  {"spec",
                   {{"type", "ClusterIP"},
                    {"selector", PodSelector(e)},
                    {"ports", json::array({{{"name", "http"},
                                            {"port", 80},
                                            {"protocol", "TCP"},
                                            {"appProtocol", "http"},
                                            {"targetPort", "http"}}})}}}};
  AddSpecHash(service);
  return service;
}

json MakeServiceAccount(const InferenceEndpoint& e) {
  json account = {{"apiVersion", "v1"},
                  {"kind", "ServiceAccount"},
                  {"metadata", OwnedMetadata(e, e.name)},
                  {"automountServiceAccountToken", false}};
  AddSpecHash(account);
  return account;
}

json MakePodDisruptionBudget(const InferenceEndpoint& e) {
  json budget = {{"apiVersion", "policy/v1"},
                 {"kind", "PodDisruptionBudget"},
                 {"metadata", OwnedMetadata(e, e.name)},
                 {"spec",
                  {{"maxUnavailable", 1},
                   {"unhealthyPodEvictionPolicy", "AlwaysAllow"},
                   {"selector", {{"matchLabels", PodSelector(e)}}}}}};
  AddSpecHash(budget);
  return budget;
}

std::string EndpointUrl(const InferenceEndpoint& e, const ResourceOptions& options) {
  return fmt::format("http://{}.{}.svc.{}", e.name, e.ns, options.cluster_domain);
}

std::vector<json> MakeChildren(const InferenceEndpoint& e, const std::vector<int64_t>& replicas,
                               const ResourceOptions& options) {
  assert(replicas.size() == e.hardware.size());
  std::vector<json> out = {MakeServiceAccount(e), MakeService(e), MakeNetworkPolicy(e, options),
                           MakePodDisruptionBudget(e)};
  for (size_t i = 0; i < e.hardware.size(); ++i) {
    out.push_back(MakeDeployment(e, e.hardware[i], replicas[i], options));
  }
  return out;
}

}  // namespace quern::control
