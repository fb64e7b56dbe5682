#include "operator/resources/spec_hash.h"

#include <gtest/gtest.h>

namespace quern::control {
namespace {

using nlohmann::json;

TEST(SpecHash, FollowsTheContentAndNotTheOrderOfKeys) {
  EXPECT_EQ(SpecHash(json::parse(R"({"a": 1, "b": 2})")),
            SpecHash(json::parse(R"({"b": 2, "a": 1})")));
  EXPECT_NE(SpecHash(json::parse(R"({"a": 1})")), SpecHash(json::parse(R"({"a": 2})")));
  // FNV-1a's published vector for the empty string, of which JSON has none: "0" stands for
  // stability.
  EXPECT_EQ(SpecHash(json(0)), "af63ad4c86019caf");
}

TEST(Covers, IgnoresWhatTheServerFilledIn) {
  EXPECT_TRUE(Covers(json::parse(R"({"a": {"b": 1, "default": 2}, "c": 3})"),
                     json::parse(R"({"a": {"b": 1}})")));
  EXPECT_TRUE(
      Covers(json::parse(R"([{"name": "x", "more": 1}])"), json::parse(R"([{"name": "x"}])")));
  EXPECT_TRUE(Covers(json::object(), json::parse(R"({"volumes": [], "nodeSelector": {}})")));
}

TEST(Covers, SeesAChangedMissingOrAddedElement) {
  EXPECT_FALSE(Covers(json::parse(R"({"a": 2})"), json::parse(R"({"a": 1})")));
  EXPECT_FALSE(Covers(json::object(), json::parse(R"({"a": 1})")));
  EXPECT_FALSE(Covers(json::parse(R"(["x", "y"])"), json::parse(R"(["x"])")));
  EXPECT_FALSE(Covers(json::parse(R"({"a": "1"})"), json::parse(R"({"a": 1})")));
}

TEST(Covers, ComparesResourcesByTheirAmount) {
  const json wanted = json::parse(
      R"({"limits": {"cpu": "1000m", "memory": "1024Mi", "nvidia.com/gpu": "1"}, "requests": {"cpu": "0.7"}})");
  EXPECT_TRUE(Covers(
      json::parse(
          R"({"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"}, "requests": {"cpu": "700m"}})"),
      wanted));
  EXPECT_FALSE(Covers(
      json::parse(
          R"({"limits": {"cpu": "1", "memory": "1G", "nvidia.com/gpu": "1"}, "requests": {"cpu": "700m"}})"),
      wanted));
  EXPECT_FALSE(Covers(json::parse(R"({"limits": {"cpu": "1"}})"), wanted));
  // Elsewhere they are texts like any other.
  EXPECT_FALSE(Covers(json::parse(R"({"a": "1Gi"})"), json::parse(R"({"a": "1024Mi"})")));
}

TEST(Covers, SeesAKeyMoreWhereItChangesWhatIsMeant) {
  const json policy = json::parse(
      R"({"podSelector": {"matchLabels": {"a": "b"}}, "ingress": [{"ports": [{"port": 8000}]}]})");
  EXPECT_TRUE(Covers(policy, policy));
  json narrower = policy;
  narrower["podSelector"]["matchLabels"]["x"] = "y";
  EXPECT_FALSE(Covers(narrower, policy));
  narrower = policy;
  narrower["podSelector"]["matchExpressions"] = {{{"key", "x"}, {"operator", "Exists"}}};
  EXPECT_FALSE(Covers(narrower, policy));
  json other = policy;
  other["ingress"][0]["from"] = {{{"podSelector", json::object()}}};
  EXPECT_FALSE(Covers(other, policy));
  EXPECT_FALSE(Covers(json::parse(R"({"selector": {"a": "b", "x": "y"}})"),
                      json::parse(R"({"selector": {"a": "b"}})")));
  EXPECT_FALSE(Covers(json::parse(R"({"nodeSelector": {"a": "b", "x": "y"}})"),
                      json::parse(R"({"nodeSelector": {"a": "b"}})")));
}

}  // namespace
}  // namespace quern::control
