#include "operator/kube/kept_metadata.h"

#include <gtest/gtest.h>

#include "operator/kube/watch_stream.h"

namespace quern::control::kube {
namespace {

KeptMetadata Keep() {
  KeptMetadata keep;
  keep.labels = {"ours"};
  keep.annotations = {"hash"};
  keep.list_entries = 3;
  keep.string_bytes = 20;
  return keep;
}

// An object with a megabyte of labels, as anybody may create one.
json Fat() {
  json object = json::parse(
      R"({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a", "namespace": "ns",
      "uid": "u", "resourceVersion": "7", "generation": 2, "generateName": "long", "deletionTimestamp": "now",
      "annotations": {"hash": "h", "other": "x"}, "managedFields": [{"fieldsV1": {"f:metadata": {"f:labels": {}}}}]},
      "spec": {"metadata": {"labels": {"theirs": "stays"}}, "labels": {"a": "b"}, "list": [1, {"metadata": 2}]}})");
  for (int i = 0; i < 65'000; ++i) object["metadata"]["labels"]["label" + std::to_string(i)] = "";
  object["metadata"]["labels"]["ours"] = "kept";
  for (int i = 0; i < 1000; ++i) {
    object["metadata"]["finalizers"].push_back("f/" + std::to_string(i));
    object["metadata"]["ownerReferences"].push_back({{"uid", std::to_string(i)}});
  }
  object["metadata"]["ownerReferences"][1]["kind"] = std::string(1000, 'k');
  return object;
}

json Lean() {
  json object = Fat();
  json& metadata = object["metadata"];
  metadata.erase("managedFields");
  metadata.erase("generateName");
  metadata["annotations"] = {{"hash", "h"}};
  metadata["labels"] = {{"ours", "kept"}};
  metadata["finalizers"] = {"f/0", "f/1", "f/2"};
  metadata["ownerReferences"] = {{{"uid", "0"}}, {{"uid", "1"}, {"kind", ""}}, {{"uid", "2"}}};
  return object;
}

TEST(KeptMetadata, AnObjectsMegabyteOfLabelsIsNotKeptAndItsSpecIs) {
  const std::string text = Fat().dump();
  EXPECT_GT(text.size(), 1'000'000u);
  const json kept = ParseKept(text, JsonShape::kObject, Keep());
  EXPECT_EQ(kept, Lean());
  EXPECT_LT(kept.dump().size(), 1000u);
}

TEST(KeptMetadata, SoItIsWithinAListWhoseOwnMetadataStays) {
  const std::string token(100, 't');
  json list = {{"kind", "List"}, {"metadata", {{"continue", token}, {"resourceVersion", "9"}}}};
  list["items"] = {Fat(), Fat()};
  const json kept = ParseKept(list.dump(), JsonShape::kList, Keep());
  list["items"] = {Lean(), Lean()};
  EXPECT_EQ(kept, list);
}

TEST(KeptMetadata, SoItIsWithinAnEvent) {
  const json event = {{"type", "ADDED"}, {"object", Fat()}};
  const KeptMetadata keep = Keep();
  const auto parsed = ParseWatchEvent(event.dump(), "watch x", &keep);
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_EQ(parsed->object, Lean());
  WatchStream stream("watch x", 4u << 20, keep);
  json seen;
  ASSERT_TRUE(stream.Feed(event.dump() + "\n", [&seen](const WatchEvent& told) {
    seen = told.object;
    return true;
  }));
  EXPECT_EQ(seen, Lean());
}

// What anybody may put into an object that wears our label: each `{}` takes 80 bytes once parsed.
json Hostile(const json& element, int count) {
  json object = {{"kind", "Thing"}, {"metadata", {{"name", "a"}}}, {"spec", {{"first", 1}}}};
  object["spec"]["rules"] = json(static_cast<size_t>(count), element);
  object["status"] = {{"later", "x"}};
  return object;
}

TEST(KeptMetadata, OfTheRestOfAnObjectOnlySoMuchIsKept) {
  KeptMetadata keep = Keep();
  keep.object_values = 100;
  for (const json& element : {json::object(), json::array(), json(1), json{{"k", {1, 2}}}}) {
    const json kept = ParseKept(Hostile(element, 200'000).dump(), JsonShape::kObject, keep);
    ASSERT_FALSE(kept.is_discarded());
    EXPECT_EQ(kept["spec"]["first"], 1);
    EXPECT_LE(kept["spec"]["rules"].size(), 98u);
    EXPECT_GE(kept["spec"]["rules"].size(), 24u);
    EXPECT_EQ(kept["metadata"]["name"], "a");
    EXPECT_EQ(kept["status"], json::object());
    EXPECT_EQ(kept.dump().find("discarded"), std::string::npos);
  }
  json map = Hostile(1, 1);
  for (int i = 0; i < 10'000; ++i) map["spec"]["map"]["k" + std::to_string(i)] = {{"a", {i}}};
  EXPECT_LT(ParseKept(map.dump(), JsonShape::kObject, keep).dump().size(), 2000u);
}

TEST(KeptMetadata, AndOnlySoManyBytesOfText) {
  KeptMetadata keep = Keep();
  keep.object_bytes = 1000;
  const json kept =
      ParseKept(Hostile(std::string(300, 's'), 1000).dump(), JsonShape::kObject, keep);
  EXPECT_EQ(kept["spec"]["rules"][2], std::string(300, 's'));
  EXPECT_LT(kept.dump().size(), 5000u);
}

TEST(KeptMetadata, EveryObjectOfAListHasItsOwnLimit) {
  KeptMetadata keep = Keep();
  keep.object_values = 20;
  const json list = {{"items", {Hostile(json::object(), 50), Hostile(1, 5)}}};
  const json kept = ParseKept(list.dump(), JsonShape::kList, keep);
  EXPECT_LE(kept["items"][0]["spec"]["rules"].size(), 18u);
  EXPECT_EQ(kept["items"][1], Hostile(1, 5));
}

TEST(KeptMetadata, TextOfAnyOtherShapeIsReadAsItIs) {
  for (const char* text :
       {"3", "[]", R"({"metadata":3})", R"({"metadata":{"labels":[1,"a"],"finalizers":{"a":1}}})",
        R"({"items":[[{"metadata":{"x":1}}]]})", R"({"object":[]})"}) {
    for (const JsonShape shape : {JsonShape::kObject, JsonShape::kEvent, JsonShape::kList}) {
      EXPECT_EQ(ParseKept(text, shape, Keep()), json::parse(text)) << text;
    }
  }
  for (const char* text : {"", "{", R"({"metadata":{"labels":{"a":)", "\xff"}) {
    EXPECT_TRUE(ParseKept(text, JsonShape::kObject, Keep()).is_discarded()) << text;
  }
}

}  // namespace
}  // namespace quern::control::kube
