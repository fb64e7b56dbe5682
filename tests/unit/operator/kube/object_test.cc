#include "operator/kube/object.h"

#include <gtest/gtest.h>

namespace quern::control::kube {
namespace {

TEST(Object, ReadersGiveNothingForWhatIsMissingOrOfAnotherType) {
  for (const json& object : {json(), json(1), json::array(), json{{"metadata", 3}},
                             json{{"metadata",
                                   {{"name", 1},
                                    {"labels", "x"},
                                    {"generation", "2"},
                                    {"ownerReferences", {1, "a"}}}}}}) {
    EXPECT_EQ(ObjectName(object), "");
    EXPECT_EQ(ObjectGeneration(object), 0);
    EXPECT_EQ(ObjectLabel(object, "a"), "");
    EXPECT_FALSE(IsBeingDeleted(object));
    EXPECT_FALSE(ControllerOf(object).has_value());
    EXPECT_EQ(StringAt(object, "/metadata/name/deeper"), "");
  }
}

TEST(Object, TheControllerIsTheOwnerThatSaysSo) {
  const json object{{"metadata",
                     {{"ownerReferences",
                       {{{"kind", "A"}, {"name", "a"}, {"uid", "1"}},
                        {{"apiVersion", "g/v1"},
                         {"kind", "B"},
                         {"name", "b"},
                         {"uid", "2"},
                         {"controller", true}}}}}}};
  const auto owner = ControllerOf(object);
  ASSERT_TRUE(owner.has_value());
  EXPECT_EQ(owner->name, "b");
  EXPECT_EQ(owner->api_version, "g/v1");
}

TEST(Object, StringAtFollowsAPointer) {
  const json object{{"status", {{"phase", "Ready"}}}};
  EXPECT_EQ(StringAt(object, "/status/phase"), "Ready");
  EXPECT_EQ(StringAt(object, "/status/other"), "");
}

TEST(Object, KeysSortByNamespaceThenName) {
  EXPECT_LT((ObjectKey{"a", "z"}), (ObjectKey{"b", "a"}));
  EXPECT_EQ((ObjectKey{"", "node"}).ToString(), "node");
  EXPECT_EQ((ObjectKey{"ns", "x"}).ToString(), "ns/x");
}

}  // namespace
}  // namespace quern::control::kube
