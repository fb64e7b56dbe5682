#include "operator/reconcilers/endpoint_reconciler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/operator/controller/fake_client.h"
#include "tests/unit/operator/reconcilers/observed.h"

namespace quern::control {
namespace {

// What was written, in order, as "verb Kind/name"; each write succeeds.
class RecordingClient : public testing::FakeClient {
 public:
  Result<json> Apply(const kube::ResourceType& type, const std::string&, const json& object,
                     const kube::ApplyOptions& options) override {
    return Write(options.subresource.empty() ? "apply" : "status", type, kube::ObjectName(object),
                 object);
  }
  Result<json> MergePatch(const kube::ResourceType& type, const std::string&,
                          const std::string& name, const json& patch, const std::string&) override {
    json object = type.kind == kKind ? EndpointObject() : json::object();
    object.merge_patch(patch);
    QUERN_TRY(Write("patch", type, name, patch));
    object["metadata"]["resourceVersion"] = "6";
    return object;
  }
  Status Delete(const kube::ResourceType& type, const std::string&, const std::string& name,
                const kube::DeleteOptions&) override {
    QUERN_TRY(Write("delete", type, name, {}));
    return {};
  }

  std::vector<std::string> writes;
  std::vector<json> bodies;
  std::function<void()> on_write = [] {};

 private:
  Result<json> Write(const char* verb, const kube::ResourceType& type, const std::string& name,
                     const json& body) {
    if (type.kind == "Event") return body;
    writes.push_back(fmt::format("{} {}/{}", verb, type.kind, name));
    bodies.push_back(body);
    on_write();
    return body;
  }
};

class EndpointReconcilerTest : public ::testing::Test {
 protected:
  EndpointReconcilerTest() : children_(std::size(kChildKinds)) {
    stores_.endpoints = &endpoints_;
    stores_.pods = &pods_;
    for (Store& store : children_) stores_.children.push_back(&store);
    clock_.Advance(ParseTime("2026-01-01T00:10:00Z")->time_since_epoch());
  }
  Result<Action> Reconcile(const json& object) {
    endpoints_.Put(object);
    EndpointReconciler reconciler(client_, stores_, board_, events_, metrics_, options_);
    return reconciler.Reconcile({"ns", "a"}, {clock_, stop_.get_token(), 0});
  }

  Store endpoints_, pods_;
  std::vector<Store> children_;
  Stores stores_;
  ScalingBoard board_;
  OperatorMetrics metrics_{"test"};
  RecordingClient client_;
  EventRecorder events_{client_, {}};
  ResourceOptions options_ = TestOptions();
  ManualClock clock_;
  std::stop_source stop_;
};

TEST_F(EndpointReconcilerTest, MakesAllObjectsAndTellsTheStatus) {
  ASSERT_TRUE(Reconcile(EndpointObject()));
  EXPECT_THAT(client_.writes,
              ::testing::ElementsAre("patch InferenceEndpoint/a", "apply ServiceAccount/a",
                                     "apply Service/a", "apply NetworkPolicy/a",
                                     "apply PodDisruptionBudget/a", "apply Deployment/a-cpu",
                                     "status InferenceEndpoint/a"));
  EXPECT_EQ(client_.bodies[0]["metadata"]["finalizers"], json::array({kFinalizer}));
  EXPECT_FALSE(client_.bodies[0].contains("spec"));
}

TEST_F(EndpointReconcilerTest, OnceAskedToStopItBeginsNoFurtherWrite) {
  for (size_t writes = 0; writes < 7; ++writes) {
    client_.writes.clear();
    stop_ = std::stop_source();
    if (writes == 0) stop_.request_stop();
    client_.on_write = [&] {
      if (client_.writes.size() == writes) stop_.request_stop();
    };
    const auto result = Reconcile(EndpointObject());
    ASSERT_FALSE(result) << writes;
    EXPECT_EQ(result.error().code, ErrorCode::kCancelled);
    EXPECT_EQ(client_.writes.size(), writes);
  }
}

TEST_F(EndpointReconcilerTest, ForAnImageThatIsNotAllowedItMakesNothingAndSaysWhy) {
  options_.allowed_images = {"r.example/team/"};
  ASSERT_TRUE(
      Reconcile(EndpointObject(R"({"model": {"uri": "file:///a"}, "runtime": {"image": "x:1"}})")));
  ASSERT_THAT(client_.writes, ::testing::ElementsAre("status InferenceEndpoint/a"));
  for (const json& condition : client_.bodies[0]["status"]["conditions"]) {
    EXPECT_EQ(condition["reason"], "ImageNotAllowed");
    EXPECT_THAT(condition["message"].get<std::string>(),
                ::testing::AllOf(::testing::HasSubstr("spec.runtime.image: 'x:1'"),
                                 ::testing::HasSubstr("r.example/team/")));
  }
}

TEST_F(EndpointReconcilerTest, InExternalModeItWritesTheFirstNumberOfReplicasAndNoOther) {
  json object = EndpointObject(
      R"({"model": {"uri": "file:///a"}, "scaling": {"mode": "external", "minReplicas": 2, "maxReplicas": 5}})");
  ASSERT_TRUE(Reconcile(object));
  EXPECT_EQ(client_.bodies[0]["spec"], json({{"replicas", 2}}));
  EXPECT_EQ(client_.bodies[0]["metadata"]["resourceVersion"], "5");
  EXPECT_EQ(client_.bodies[5]["spec"]["replicas"], 2);  // the Deployment's
  client_.writes.clear();
  object["metadata"]["finalizers"] = json::array({kFinalizer});
  object["metadata"]["resourceVersion"] = "7";
  object["spec"]["replicas"] = 4;
  ASSERT_TRUE(Reconcile(object));
  EXPECT_EQ(client_.writes[0], "apply ServiceAccount/a");
}

TEST_F(EndpointReconcilerTest, OneThatComesFromBuiltinModeKeepsItsReplicas) {
  json object = EndpointObject(
      R"({"model": {"uri": "file:///a"}, "scaling": {"mode": "external", "maxReplicas": 5}})");
  object["status"]["desiredReplicas"] = 3;
  ASSERT_TRUE(Reconcile(object));
  EXPECT_EQ(client_.bodies[0]["spec"]["replicas"], 3);
}

TEST_F(EndpointReconcilerTest, WhatIsLeftOfExternalModeIsTakenOut) {
  json object = EndpointObject(R"({"model": {"uri": "file:///a"}, "replicas": 4})");
  object["metadata"]["finalizers"] = json::array({kFinalizer});
  ASSERT_TRUE(Reconcile(object));
  EXPECT_EQ(client_.writes[0], "patch InferenceEndpoint/a");
  EXPECT_EQ(client_.bodies[0]["spec"], json({{"replicas", nullptr}}));
}

// Made by an earlier spec, with an hour to finish its requests: its NetworkPolicy stays as long.
TEST_F(EndpointReconcilerTest, APodOfAnEarlierSpecIsWaitedForAsLongAsThatSaid) {
  json object = EndpointObject();
  object["metadata"]["finalizers"] = json::array({kFinalizer});
  object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z";
  json pod = OwnPod("a-1");
  pod["spec"]["terminationGracePeriodSeconds"] = 3600;
  pods_.Put(pod);
  ASSERT_TRUE(Reconcile(object));
  EXPECT_TRUE(client_.writes.empty());
}

// Deleted two hours ago, with a pod that says that it may take years to stop.
TEST_F(EndpointReconcilerTest, APodsOwnGracePeriodHoldsADeletionUpNoLongerThanASpecCould) {
  json object = EndpointObject();
  object["metadata"]["finalizers"] = json::array({kFinalizer});
  object["metadata"]["deletionTimestamp"] = "2025-12-31T22:10:00Z";
  json pod = OwnPod("a-1");
  pod["spec"]["terminationGracePeriodSeconds"] = 1'000'000'000;
  pods_.Put(pod);
  ASSERT_TRUE(Reconcile(object));
  ASSERT_FALSE(client_.writes.empty());
  EXPECT_EQ(client_.writes.back(), "patch InferenceEndpoint/a");
  EXPECT_EQ(client_.bodies.back()["metadata"]["finalizers"], json::array());
}

TEST_F(EndpointReconcilerTest, APodThatOnlyWearsTheLabelsHoldsNoDeletionUp) {
  json object = EndpointObject();
  object["metadata"]["finalizers"] = json::array({kFinalizer});
  object["metadata"]["deletionTimestamp"] = "2026-01-01T00:09:59Z";
  json pod = OwnPod("a-1");
  pod["metadata"].erase("ownerReferences");
  pods_.Put(pod);
  ASSERT_TRUE(Reconcile(object));
  EXPECT_THAT(client_.writes, ::testing::ElementsAre("patch InferenceEndpoint/a"));
}

TEST_F(EndpointReconcilerTest, AnOwnPodIsWaitedFor) {
  json object = EndpointObject();
  object["metadata"]["finalizers"] = json::array({kFinalizer});
  object["metadata"]["deletionTimestamp"] = "2026-01-01T00:09:59Z";
  pods_.Put(OwnPod("a-1"));
  ASSERT_TRUE(Reconcile(object));
  EXPECT_TRUE(client_.writes.empty());
}

}  // namespace
}  // namespace quern::control
