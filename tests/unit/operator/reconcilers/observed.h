#pragma once

#include <gtest/gtest.h>

#include "operator/api/json.h"
#include "operator/reconcilers/apply.h"
#include "operator/reconcilers/observe.h"
#include "operator/resources/children.h"

namespace quern::control {

inline ResourceOptions TestOptions() {
  ResourceOptions options;
  options.serve_image = "localhost/quern/serve:test";
  return options;
}

inline json EndpointObject(const char* spec = R"({"model": {"uri": "file:///a.gguf"}})") {
  return {{"apiVersion", kApiVersion},
          {"kind", kKind},
          {"metadata",
           {{"name", "a"},
            {"namespace", "ns"},
            {"uid", "u"},
            {"generation", 2},
            {"resourceVersion", "5"}}},
          {"spec", json::parse(spec)}};
}

// A pod as the ReplicaSet of the endpoint's Deployment makes it.
inline json OwnPod(const std::string& name) {
  return {{"metadata",
           {{"name", name},
            {"namespace", "ns"},
            {"uid", "uid-" + name},
            {"labels", {{kEndpointLabel, "a"}, {kVariantLabel, "cpu"}}},
            {"ownerReferences", json::array({{{"apiVersion", "apps/v1"},
                                              {"kind", "ReplicaSet"},
                                              {"name", "a-cpu-5d4f8c7b9"},
                                              {"uid", "uid-of-ReplicaSet"},
                                              {"controller", true}}})}}}};
}

// An endpoint whose objects do not exist yet.
inline Observed NewlySeen(const char* spec = R"({"model": {"uri": "file:///a.gguf"}})") {
  Observed out;
  out.object = EndpointObject(spec);
  auto endpoint = ParseEndpoint(out.object);
  EXPECT_TRUE(endpoint) << endpoint.error().message;
  out.endpoint = *endpoint;
  out.children.resize(std::size(kChildKinds));
  out.now = *ParseTime("2026-01-01T00:00:00Z");
  return out;
}

// The same with all objects as the operator made them, and a Deployment of `replicas` of which
// `ready` are ready.
inline Observed Made(Observed out, int64_t replicas, int64_t ready) {
  for (auto& children : out.children) children.clear();
  for (PlannedApply& apply : PlanChildren(out, replicas, TestOptions()).applies) {
    json& object = apply.object;
    object["metadata"]["uid"] = "uid-of-" + object["kind"].get<std::string>();
    if (object["kind"] == "Deployment") {
      object["metadata"]["generation"] = 1;
      object["status"] = {{"observedGeneration", 1},
                          {"replicas", replicas},
                          {"updatedReplicas", replicas},
                          {"readyReplicas", ready}};
    }
    out.children[apply.type].push_back(object);
  }
  return out;
}

}  // namespace quern::control
