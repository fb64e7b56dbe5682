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

}  // namespace
}  // namespace quern::control
