#include "operator/controller/predicates.h"

#include <gtest/gtest.h>

#include "tests/unit/operator/controller/fake_client.h"

namespace quern::control {
namespace {

using testing::Object;

Change Between(const json& before, const json& after) {
  return {std::make_shared<const json>(before), std::make_shared<const json>(after)};
}

TEST(Predicates, AnEventThatChangedOnlyStatusIsNotWorthAReconcile) {
  json before = Object("a", "1");
  json after = Object("a", "2");
  after["status"] = {{"replicas", 3}};
  after["metadata"]["managedFields"] = {1};
  EXPECT_FALSE(ChangedMoreThanStatus(Between(before, after)));
  EXPECT_TRUE(AnyChange(Between(before, after)));
}

TEST(Predicates, EverythingElseIs) {
  const json before = Object("a", "1", {{"x", 1}});
  const std::vector<std::pair<const char*, json>> changes{
      {"/spec/x", 2},
      {"/data", "x"},
      {"/metadata/generation", 2},
      {"/metadata/labels", {{"a", "b"}}},
      {"/metadata/annotations", {{"a", "b"}}},
      {"/metadata/finalizers", {"f"}},
      {"/metadata/deletionTimestamp", "2026-01-01T00:00:00Z"},
      {"/metadata/ownerReferences", {{{"uid", "u"}}}}};
  for (const auto& [pointer, value] : changes) {
    json after = before;
    after[json::json_pointer(pointer)] = value;
    EXPECT_TRUE(ChangedMoreThanStatus(Between(before, after))) << pointer;
  }
  const auto object = std::make_shared<const json>(before);
  EXPECT_TRUE(ChangedMoreThanStatus({nullptr, object}));
  EXPECT_TRUE(ChangedMoreThanStatus({object, nullptr}));
  EXPECT_TRUE(ChangedMoreThanStatus({object, object}));  // a resync
}

TEST(Predicates, AChildBelongsToItsControllerOfTheRightKindAndGroup) {
  json child = Object("child", "1");
  child["metadata"]["ownerReferences"] = {{{"apiVersion", "serving.quern.dev/v1alpha1"},
                                           {"kind", "InferenceEndpoint"},
                                           {"name", "chat"},
                                           {"uid", "u"},
                                           {"controller", true}}};
  const Change change{nullptr, std::make_shared<const json>(child)};
  EXPECT_EQ(ControllerOwnerKey("serving.quern.dev", "InferenceEndpoint")(change),
            (ObjectKey{"ns", "chat"}));
  EXPECT_FALSE(ControllerOwnerKey("apps", "InferenceEndpoint")(change).has_value());
  EXPECT_FALSE(ControllerOwnerKey("serving.quern.dev", "Other")(change).has_value());
  const Change orphan{nullptr, std::make_shared<const json>(Object("x", "1"))};
  EXPECT_FALSE(ControllerOwnerKey("serving.quern.dev", "InferenceEndpoint")(orphan).has_value());
}

TEST(Predicates, ALabelNamesTheKeyAlsoOfWhatWasDeleted) {
  json pod = Object("pod", "1");
  pod["metadata"]["labels"] = {{"endpoint", "chat"}};
  const Change gone{std::make_shared<const json>(pod), nullptr};
  EXPECT_EQ(LabelKey("endpoint")(gone), (ObjectKey{"ns", "chat"}));
  EXPECT_FALSE(LabelKey("other")(gone).has_value());
}

}  // namespace
}  // namespace quern::control
