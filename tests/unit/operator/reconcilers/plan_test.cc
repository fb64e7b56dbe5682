#include <gtest/gtest.h>

#include "operator/reconcilers/resource_types.h"
#include "tests/unit/operator/reconcilers/observed.h"

namespace quern::control {
namespace {

using Why = PlannedApply::Why;

TEST(PlanChildren, MakesEveryObjectOnce) {
  const ChildPlan plan = PlanChildren(NewlySeen(), 1, TestOptions());
  ASSERT_EQ(plan.applies.size(), std::size(kChildKinds));
  for (size_t i = 0; i < plan.applies.size(); ++i) {
    EXPECT_EQ(plan.applies[i].type, i);
    EXPECT_EQ(plan.applies[i].why, Why::kCreate);
    EXPECT_FALSE(plan.applies[i].object["metadata"].contains("uid"));
  }
}

TEST(PlanChildren, LeavesAloneWhatIsAsItShouldBe) {
  const ChildPlan plan = PlanChildren(Made(NewlySeen(), 2, 2), 2, TestOptions());
  EXPECT_TRUE(plan.applies.empty());
  EXPECT_TRUE(plan.deletes.empty());
}

TEST(PlanChildren, NothingThatIsWrittenIsLostOnTheWayIntoTheStores) {
  for (const PlannedApply& apply : PlanChildren(NewlySeen(), 1, TestOptions()).applies) {
    const json read =
        kube::ParseKept(apply.object.dump(), kube::JsonShape::kObject, ReadMetadata());
    EXPECT_EQ(read, apply.object);  // else it would look changed by somebody for ever
  }
}

TEST(PlanChildren, AppliesTheDeploymentWhenReplicasChange) {
  const ChildPlan plan = PlanChildren(Made(NewlySeen(), 1, 1), 3, TestOptions());
  ASSERT_EQ(plan.applies.size(), 1u);
  EXPECT_EQ(plan.applies[0].why, Why::kChange);
  EXPECT_EQ(plan.applies[0].object["spec"]["replicas"], 3);
  EXPECT_EQ(plan.applies[0].object["metadata"]["uid"], "uid-of-Deployment");  // this one, no other
}

TEST(PlanChildren, PutsAnEditedObjectRight) {
  Observed seen = Made(NewlySeen(), 1, 1);
  json service = seen.children[1][0];
  service["spec"]["ports"][0]["port"] = 8080;
  seen.children[1] = {service};
  const ChildPlan plan = PlanChildren(seen, 1, TestOptions());
  ASSERT_EQ(plan.applies.size(), 1u);
  EXPECT_EQ(plan.applies[0].why, Why::kDrift);
  EXPECT_EQ(plan.applies[0].object["kind"], "Service");
  // A port is known by its number: the apply alone would leave two of the same name.
  ASSERT_EQ(plan.patches.size(), 1u);
  EXPECT_EQ(plan.patches[0].patch["spec"]["ports"], plan.applies[0].object["spec"]["ports"]);
}

TEST(PlanChildren, TakesOutWhatSomebodyAdded) {
  Observed seen = Made(NewlySeen(), 1, 1);
  json deployment = seen.children.back()[0];
  deployment["metadata"]["resourceVersion"] = "9";
  deployment["spec"]["template"]["spec"]["hostNetwork"] = true;
  seen.children.back() = {deployment};
  const ChildPlan plan = PlanChildren(seen, 1, TestOptions());
  EXPECT_TRUE(plan.applies.empty());  // all that the operator sends is as it should be
  ASSERT_EQ(plan.patches.size(), 1u);
  EXPECT_EQ(plan.patches[0].name, "a-cpu");
  EXPECT_EQ(plan.patches[0].why, PlannedPatch::Why::kDrift);
  EXPECT_EQ(plan.patches[0].patch, json::parse(R"({
      "metadata": {"uid": "uid-of-Deployment", "resourceVersion": "9"},
      "spec": {"template": {"spec": {"hostNetwork": null}}}})"));
}

TEST(PlanChildren, ANewSpecIsAppliedBeforeItIsLookedAtForAdditions) {
  // What the new spec leaves out is no addition of somebody else's: the apply takes it away.
  Observed seen = Made(NewlySeen(), 1, 1);
  json deployment = seen.children.back()[0];
  deployment["spec"]["template"]["spec"]["volumes"].push_back({{"name", "shm"}});
  deployment["metadata"]["annotations"].clear();
  seen.children.back() = {deployment};
  const ChildPlan plan = PlanChildren(seen, 1, TestOptions());
  EXPECT_TRUE(plan.patches.empty());
  ASSERT_EQ(plan.applies.size(), 1u);
  EXPECT_EQ(plan.applies[0].why, Why::kChange);
}

// An endpoint of 10 replicas whose variant "cpu" has been renamed to "big".
class RenamedVariantTest : public ::testing::Test {
 protected:
  // The old Deployment with as many replicas, and the new one with as many ready.
  ChildPlan Plan(int64_t old_replicas, int64_t old_ready, int64_t fresh_ready) {
    Observed seen = Made(NewlySeen(), old_replicas, old_ready);
    json old = seen.children.back()[0], fresh = old;
    old["metadata"]["resourceVersion"] = "9";
    fresh["metadata"]["name"] = "a-big";
    fresh["spec"]["replicas"] = 10;
    fresh["status"]["readyReplicas"] = fresh_ready;
    seen.endpoint.hardware[0].name = "big";
    seen.children.back() = {old, fresh};
    return PlanChildren(seen, 10, TestOptions());
  }
};

TEST_F(RenamedVariantTest, TheOldOneKeepsAllItsReplicasUntilANewOneIsReady) {
  const ChildPlan plan = Plan(10, 10, 0);
  EXPECT_TRUE(plan.patches.empty());
  EXPECT_TRUE(plan.deletes.empty());
}

TEST_F(RenamedVariantTest, TheOldOneGivesUpAsManyAsAreReadyOfTheNew) {
  const ChildPlan plan = Plan(10, 10, 3);
  EXPECT_TRUE(plan.deletes.empty());
  ASSERT_EQ(plan.patches.size(), 1u);
  EXPECT_EQ(plan.patches[0].name, "a-cpu");
  EXPECT_EQ(plan.patches[0].patch, json::parse(R"({
      "metadata": {"uid": "uid-of-Deployment", "resourceVersion": "9"}, "spec": {"replicas": 7}})"));
  EXPECT_TRUE(Plan(7, 7, 3).patches.empty());
  EXPECT_TRUE(Plan(4, 4, 3).patches.empty());  // never more than it has
}

TEST_F(RenamedVariantTest, TheOldOneGoesWhenNoneOfItsReplicasIsNeeded) {
  const ChildPlan plan = Plan(1, 1, 10);
  EXPECT_TRUE(plan.patches.empty());
  ASSERT_EQ(plan.deletes.size(), 1u);
  EXPECT_EQ(plan.deletes[0].name, "a-cpu");
  EXPECT_EQ(plan.deletes[0].uid, "uid-of-Deployment");
}

TEST_F(RenamedVariantTest, AnOldOneThatServesNothingGoesWhenANewOneServes) {
  EXPECT_EQ(Plan(10, 0, 1).deletes.size(), 1u);
  EXPECT_TRUE(Plan(10, 0, 0).deletes.empty());
}

// Which of the objects in the stores an endpoint takes for its own.
class ObserveTest : public ::testing::Test {
 protected:
  ObserveTest() : children_(std::size(kChildKinds)) {
    stores_.endpoints = &endpoints_;
    stores_.pods = &pods_;
    for (Store& store : children_) stores_.children.push_back(&store);
  }
  // A Service by that name whose one owner is the endpoint of the tests.
  static json Service(const char* ns, const char* name, bool controller = true) {
    return {{"apiVersion", "v1"},
            {"kind", "Service"},
            {"metadata",
             {{"name", name},
              {"namespace", ns},
              {"ownerReferences", json::array({{{"apiVersion", kApiVersion},
                                                {"kind", kKind},
                                                {"name", "a"},
                                                {"uid", "u"},
                                                {"controller", controller}}})}}}};
  }
  Store endpoints_, pods_;
  std::vector<Store> children_;
  Stores stores_;
  ScalingBoard board_;
};

TEST_F(ObserveTest, OnlyObjectsThatItControlsInItsNamespaceAreAnEndpointsOwn) {
  children_[1].Put(Service("ns", "a"));
  children_[1].Put(Service("elsewhere", "a"));
  children_[1].Put(Service("ns", "borrowed", false));
  const auto seen = Observe(EndpointObject(), stores_, board_, {});
  ASSERT_TRUE(seen) << seen.error().message;
  ASSERT_EQ(seen->children[1].size(), 1u);
  EXPECT_EQ(seen->children[1][0]["metadata"]["namespace"], "ns");
  EXPECT_EQ(seen->children[1][0]["metadata"]["name"], "a");
}

TEST_F(ObserveTest, OnlyPodsThatItsReplicaSetsMadeAreAnEndpointsOwn) {
  pods_.Put(OwnPod("own"));
  json pod = OwnPod("of-a-variant-that-is-no-more");
  pod["metadata"]["labels"][kVariantLabel] = "old-one";
  pod["metadata"]["ownerReferences"][0]["name"] = "a-old-one-7c5b";
  pods_.Put(pod);
  pod = OwnPod("labels-only");
  pod["metadata"].erase("ownerReferences");
  pods_.Put(pod);
  pod = OwnPod("of-another-endpoint");
  pod["metadata"]["ownerReferences"][0]["name"] = "a-cpu-b-cpu-7c5b";
  pods_.Put(pod);
  pod = OwnPod("of-a-job");
  pod["metadata"]["ownerReferences"][0]["kind"] = "Job";
  pods_.Put(pod);
  pod = OwnPod("of-two");
  pod["metadata"]["ownerReferences"][0]["controller"] = false;
  pods_.Put(pod);
  pod = OwnPod("elsewhere");
  pod["metadata"]["namespace"] = "elsewhere";
  pods_.Put(pod);
  const auto seen = Observe(EndpointObject(), stores_, board_, {});
  ASSERT_TRUE(seen) << seen.error().message;
  ASSERT_EQ(seen->pods.size(), 2u);
  EXPECT_EQ(seen->pods[0]["metadata"]["name"], "of-a-variant-that-is-no-more");
  EXPECT_EQ(seen->pods[1]["metadata"]["name"], "own");
}

TEST(PlanDeletion, TakesTheDeploymentFirstAndTheRestWhenNoPodIsLeft) {
  Observed seen = Made(NewlySeen(), 1, 1);
  seen.endpoint.deletion_timestamp = "2026-01-01T00:00:00Z";
  seen.pods = {json{{"metadata", {{"name", "p"}}}}};
  DeletionPlan plan = PlanDeletion(seen, std::chrono::seconds(60));
  ASSERT_EQ(plan.deletes.size(), 1u);
  EXPECT_EQ(plan.deletes[0].name, "a-cpu");
  EXPECT_FALSE(plan.done);
  seen.children.back().clear();
  EXPECT_TRUE(PlanDeletion(seen, std::chrono::seconds(60)).deletes.empty());
  seen.pods.clear();
  plan = PlanDeletion(seen, std::chrono::seconds(60));
  EXPECT_EQ(plan.deletes.size(), 4u);
  EXPECT_TRUE(plan.done);
  EXPECT_FALSE(plan.gave_up);
}

TEST(PlanDeletion, DoesNotWaitForEverForALostNode) {
  Observed seen = Made(NewlySeen(), 1, 1);
  seen.endpoint.deletion_timestamp = "2026-01-01T00:00:00Z";
  seen.pods = {json{{"metadata", {{"name", "p"}}}}};
  seen.now += std::chrono::seconds(61);
  const DeletionPlan plan = PlanDeletion(seen, std::chrono::seconds(60));
  EXPECT_TRUE(plan.done);
  EXPECT_TRUE(plan.gave_up);
}

TEST(DesiredReplicas, FollowsTheDecisionThenTheStatusThenTheDeploymentThenTheMinimum) {
  const char* spec =
      R"({"model": {"uri": "file:///a"}, "scaling": {"minReplicas": 2, "maxReplicas": 9,
                        "targetTokensPerSecond": "1"}})";
  Observed seen = NewlySeen(spec);
  EXPECT_EQ(DesiredReplicas(seen), 2);
  seen.children.back() = {json{{"spec", {{"replicas", 4}}}}};
  EXPECT_EQ(DesiredReplicas(seen), 4);
  seen.endpoint.status.desired_replicas = 5;
  EXPECT_EQ(DesiredReplicas(seen), 5);
  seen.scaling.emplace();
  EXPECT_EQ(DesiredReplicas(seen), 5);
  seen.scaling->decision.emplace();
  seen.scaling->decision->replicas = 6;
  EXPECT_EQ(DesiredReplicas(seen), 6);
  seen.scaling->decision->replicas = 60;
  EXPECT_EQ(DesiredReplicas(seen), 9);
}

TEST(DesiredReplicas, InExternalModeIsWhatTheScaleSubresourceSays) {
  Observed seen = NewlySeen(R"({"model": {"uri": "file:///a"}, "replicas": 3,
                               "scaling": {"mode": "external", "maxReplicas": 4}})");
  seen.endpoint.status.desired_replicas = 1;
  EXPECT_EQ(DesiredReplicas(seen), 3);
  seen.endpoint.external_replicas = 8;
  EXPECT_EQ(DesiredReplicas(seen), 4);
  // Nobody has written yet: what there is, and not what was decided in the other mode.
  seen.endpoint.external_replicas.reset();
  EXPECT_EQ(DesiredReplicas(seen), 1);
  seen.endpoint.status.desired_replicas = 3;
  seen.scaling.emplace();
  seen.scaling->decision.emplace();
  seen.scaling->decision->replicas = 4;
  EXPECT_EQ(DesiredReplicas(seen), 3);
}

}  // namespace
}  // namespace quern::control
