#include "operator/simulation/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace quern::simulation {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TEST(Profile, TheBuiltInOnesAreReadAndSayHowTheyCameAbout) {
  ASSERT_EQ(BuiltinProfiles().size(), 3U);
  for (const BuiltinProfile& builtin : BuiltinProfiles()) {
    const auto profile = ParseProfile(builtin.json);
    ASSERT_TRUE(profile.ok()) << builtin.name << ": " << profile.error().message;
    EXPECT_EQ(profile->name, builtin.name);
    EXPECT_THAT(profile->comment, HasSubstr(profile->measured ? "Measured" : "Modelled"));
  }
}

TEST(Profile, WhatIsWrongIsNamed) {
  const json good = json::parse(BuiltinProfiles()[0].json);
  const auto error = [&](const char* pointer, const json& value) {
    json bad = good;
    bad[json::json_pointer(pointer)] = value;
    const auto profile = ParseProfile(bad.dump());
    return profile.ok() ? std::string() : profile.error().message;
  };
  EXPECT_EQ(error("/max_sequences", 64), "");
  EXPECT_THAT(error("/max_sequences", 0), HasSubstr("max_sequences must be a whole number"));
  EXPECT_THAT(error("/max_sequences", "64"), HasSubstr("max_sequences"));
  EXPECT_THAT(error("/max_batch_tokens", 127), HasSubstr("max_batch_tokens"));
  EXPECT_THAT(error("/kv_tokens", 1e30), HasSubstr("kv_tokens"));
  EXPECT_THAT(error("/kind", "guessed"), HasSubstr("kind must be"));
  EXPECT_THAT(error("/step_seconds/step", -1), HasSubstr("step_seconds.step must be a number"));
  EXPECT_THAT(error("/step_seconds/step", 1e308), HasSubstr("0 to 10"));
  EXPECT_THAT(error("/step_seconds/more", 1), HasSubstr("step_seconds.more is not known"));
  EXPECT_THAT(error("/more", 1), HasSubstr("more is not known"));
  EXPECT_THAT(error("/step_seconds", 1), HasSubstr("step_seconds. is no object"));
  json nothing = good;
  for (auto& [name, value] : nothing["step_seconds"].items()) value = 0;
  EXPECT_THAT(ParseProfile(nothing.dump()).error().message, HasSubstr("no step takes less"));
  json missing = good;
  missing.erase("kv_tokens");
  EXPECT_THAT(ParseProfile(missing.dump()).error().message, HasSubstr("kv_tokens is missing"));
  EXPECT_THAT(ParseProfile("{").error().message, HasSubstr("no JSON"));
  EXPECT_THAT(ParseProfile("[]").error().message, HasSubstr("no object"));
}

}  // namespace
}  // namespace quern::simulation
