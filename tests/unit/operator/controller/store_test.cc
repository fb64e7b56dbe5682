#include "operator/controller/store.h"

#include <gtest/gtest.h>

#include "tests/unit/operator/controller/fake_client.h"

namespace quern::control {
namespace {

using testing::Object;

std::vector<std::string> Names(const std::vector<ObjectPtr>& objects) {
  std::vector<std::string> names;
  for (const ObjectPtr& object : objects) names.push_back(kube::ObjectName(*object));
  return names;
}

// "+a" added, "-a" removed, "~a" changed.
std::string Told(const std::vector<Change>& changes) {
  std::string text;
  for (const Change& change : changes) {
    text += (!change.before ? "+" : !change.after ? "-" : "~") + kube::ObjectName(change.object());
  }
  return text;
}

json Owned(const std::string& name, const std::string& owner_uid, const std::string& label) {
  json object = Object(name, "1");
  object["metadata"]["ownerReferences"] = {{{"uid", owner_uid}}};
  object["metadata"]["labels"] = {{"app", label}};
  return object;
}

TEST(Store, ReplaceTellsWhatIsDifferentDeletionsFirst) {
  Store store;
  EXPECT_EQ(Told(store.Replace({Object("b", "1"), Object("a", "1")})), "+a+b");
  EXPECT_EQ(Told(store.Replace({Object("a", "1"), Object("b", "1")})), "");
  EXPECT_EQ(Told(store.Replace({Object("b", "2"), Object("c", "3")})), "-a~b+c");
  EXPECT_EQ(Names(store.List()), (std::vector<std::string>{"b", "c"}));
}

TEST(Store, AnObjectMadeAnewUnderTheSameNameIsADeletionAndAnAddition) {
  Store store;
  store.Replace({Object("a", "1", {}, "first")});
  EXPECT_EQ(Told(store.Replace({Object("a", "2", {}, "second")})), "-a+a");
  EXPECT_EQ(Told(store.Put(Object("a", "3", {}, "third"))), "-a+a");
}

TEST(Store, RemoveTellsTheLastStateAndIgnoresTheUnknown) {
  Store store;
  store.Put(Object("a", "1"));
  const auto changes = store.Remove(Object("a", "5"));
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(kube::ObjectResourceVersion(*changes[0].before), "5");
  EXPECT_EQ(Told(store.Remove(Object("a", "5"))), "");
  EXPECT_EQ(store.size(), 0u);
}

TEST(Store, IndexesFollowChanges) {
  Store store;
  store.Put(Owned("a", "owner-1", "x"));
  store.Put(Owned("b", "owner-1", "y"));
  EXPECT_EQ(Names(store.ListByOwner("owner-1")), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(Names(store.ListByLabel("app", "x")), std::vector<std::string>{"a"});
  store.Put(Owned("a", "owner-2", "y"));
  EXPECT_EQ(Names(store.ListByOwner("owner-1")), std::vector<std::string>{"b"});
  EXPECT_EQ(Names(store.ListByLabel("app", "y")), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(store.ListByLabel("app", "x").empty());
  store.Remove(Owned("b", "owner-1", "y"));
  EXPECT_TRUE(store.ListByOwner("owner-1").empty());
  store.Replace({Owned("c", "owner-3", "z")});
  EXPECT_TRUE(store.ListByOwner("owner-2").empty());
  EXPECT_EQ(Names(store.ListByOwner("owner-3")), std::vector<std::string>{"c"});
}

TEST(Store, ListsOneNamespaceOrAll) {
  Store store;
  json other = Object("x", "1");
  other["metadata"]["namespace"] = "other";
  store.Replace({Object("a", "1"), other});
  EXPECT_EQ(Names(store.List("ns")), std::vector<std::string>{"a"});
  EXPECT_EQ(Names(store.List()), (std::vector<std::string>{"a", "x"}));
  EXPECT_EQ(store.Get("other", "a"), nullptr);
}

TEST(Store, ObjectsOfAWrongShapeAreHarmless) {
  Store store;
  EXPECT_TRUE(store.Put(json{{"metadata", 1}}).empty());
  json odd = Object("a", "1");
  odd["metadata"]["labels"] = {{"x", 1}};
  odd["metadata"]["ownerReferences"] = {1, {{"uid", 2}}};
  EXPECT_EQ(Told(store.Replace({odd, json(), json::array()})), "+a");
}

}  // namespace
}  // namespace quern::control
