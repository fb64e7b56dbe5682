#include "operator/resources/foreign.h"

#include <gtest/gtest.h>

#include "operator/api/json.h"
#include "operator/resources/children.h"

namespace quern::control {
namespace {

// The objects of an endpoint as the API server would keep them.
class ForeignTest : public ::testing::Test {
 protected:
  ForeignTest() {
    auto endpoint =
        ParseEndpoint({{"metadata", {{"name", "a"}, {"namespace", "ns"}, {"uid", "u"}}},
                       {"spec", json::parse(R"({"model": {"uri": "pvc://weights/a.gguf"}})")}});
    EXPECT_TRUE(endpoint) << endpoint.error().message;
    deployment_ = MakeDeployment(*endpoint, endpoint->hardware[0], 1, {});
    service_ = MakeService(*endpoint);
    policy_ = MakeNetworkPolicy(*endpoint, {});
  }
  static json& Pod(json& deployment) { return deployment["spec"]["template"]["spec"]; }
  static json& Container(json& deployment) { return Pod(deployment)["containers"][0]; }
  // The live object with what is foreign taken out by the merge patch that the operator sends.
  static json Patched(const json& live, const json& wanted) {
    json out = live;
    out.merge_patch(MergePatchBetween(live, WithoutForeign(live, wanted)));
    return out;
  }

  json deployment_, service_, policy_;
};

TEST_F(ForeignTest, WhatTheServerFillsInAndWhatIsTheirsToAddStays) {
  json live = deployment_;
  live["status"] = {{"replicas", 1}};
  live["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now";
  Pod(live)["schedulerName"] = "default-scheduler";
  Pod(live)["priorityClassName"] = "high";
  Container(live)["terminationMessagePath"] = "/dev/termination-log";
  EXPECT_EQ(WithoutForeign(live, deployment_), live);
  EXPECT_EQ(MergePatchBetween(live, live), json::object());
}

TEST_F(ForeignTest, WhatChangesWhatRunsInAPodGoes) {
  json live = deployment_;
  Container(live)["terminationMessagePath"] = "/dev/termination-log";
  const json clean = live;
  Pod(live)["containers"].insert(Pod(live)["containers"].begin(),
                                 json({{"name", "other"}, {"image", "other"}}));
  Pod(live)["initContainers"] = json::array({{{"name", "first"}, {"image", "other"}}});
  Pod(live)["volumes"].push_back({{"name", "data"}, {"emptyDir", json::object()}});
  Pod(live)["hostNetwork"] = true;
  Pod(live)["hostPID"] = true;
  Pod(live)["securityContext"]["supplementalGroups"] = json::array({0});
  json& container = Pod(live)["containers"][1];
  container["command"] = json::array({"/bin/sh"});
  container["env"] = json::array({{{"name", "A"}, {"value", "b"}}});
  container["volumeMounts"].push_back({{"name", "data"}, {"mountPath", "/data"}});
  container["ports"][0]["hostPort"] = 8000;
  container["securityContext"]["privileged"] = true;
  container["securityContext"]["capabilities"]["add"] = json::array({"SYS_ADMIN"});
  container["lifecycle"]["postStart"] = {{"exec", {{"command", json::array({"sh"})}}}};
  EXPECT_EQ(WithoutForeign(live, deployment_), clean);
  EXPECT_EQ(Patched(live, deployment_), clean);
}

TEST_F(ForeignTest, AServiceGetsNoOtherAddressesAndARolloutIsNotPaused) {
  json live = service_;
  live["spec"]["externalIPs"] = json::array({"192.0.2.1"});
  live["spec"]["publishNotReadyAddresses"] = true;
  EXPECT_EQ(Patched(live, service_), service_);
  live = deployment_;
  live["spec"]["paused"] = true;
  EXPECT_EQ(Patched(live, deployment_), deployment_);
}

TEST_F(ForeignTest, AListThatWouldBeLeftEmptyGetsItsOwnElementInTheSameStep) {
  json live = service_;
  live["spec"]["clusterIP"] = "10.0.0.1";
  const json clean = live;
  live["spec"]["ports"][0]["port"] = 8080;
  EXPECT_EQ(Patched(live, service_), clean);
}

TEST_F(ForeignTest, AnElementThatIsOnlyMissingIsLeftToTheApply) {
  json live = deployment_;
  Container(live)["ports"].erase(1);
  EXPECT_EQ(WithoutForeign(live, deployment_), live);
}

TEST_F(ForeignTest, APolicyLetsNothingOut) {
  json live = policy_;
  live["spec"]["egress"] = json::array({json::object()});
  EXPECT_EQ(Patched(live, policy_), policy_);
}

TEST(MergePatchBetween, MakesTheOneOfTheOther) {
  const json from = json::parse(R"({"a": 1, "b": {"c": [1, 2], "d": 2}, "gone": {"x": 1}})");
  const json to = json::parse(R"({"a": 2, "b": {"c": [1], "d": 2}, "new": {"y": {}}})");
  const json patch = MergePatchBetween(from, to);
  EXPECT_EQ(patch, json::parse(R"({"a": 2, "b": {"c": [1]}, "gone": null, "new": {"y": {}}})"));
  json patched = from;
  patched.merge_patch(patch);
  EXPECT_EQ(patched, to);
}

}  // namespace
}  // namespace quern::control
