#include "operator/api/conditions.h"

#include <gtest/gtest.h>

namespace quern::control {
namespace {

const WallTime kStart = *ParseTime("2026-01-01T00:00:00Z");
const WallTime kLater = *ParseTime("2026-01-01T00:05:00Z");

TEST(Conditions, KeepTheTransitionTimeWhileTheStatusStays) {
  std::vector<Condition> conditions;
  SetCondition(conditions, {"Ready", "False", "Loading", "loading", 1}, kStart);
  SetCondition(conditions, {"Ready", "False", "Crashed", "exit code 2", 2}, kLater);
  ASSERT_EQ(conditions.size(), 1u);
  EXPECT_EQ(conditions[0].last_transition_time, "2026-01-01T00:00:00Z");
  EXPECT_EQ(conditions[0].reason, "Crashed");
  EXPECT_EQ(conditions[0].observed_generation, 2);
}

TEST(Conditions, MoveTheTransitionTimeWhenTheStatusChanges) {
  std::vector<Condition> conditions;
  SetCondition(conditions, {"Ready", "False", "Loading", "", 1}, kStart);
  SetCondition(conditions, {"Ready", "True", "Serving", "", 1}, kLater);
  EXPECT_EQ(conditions[0].last_transition_time, "2026-01-01T00:05:00Z");
}

TEST(Conditions, OfOtherTypesAreLeftAlone) {
  std::vector<Condition> conditions;
  SetCondition(conditions, {"Ready", "False", "Loading", "", 1}, kStart);
  SetCondition(conditions, {"Degraded", "True", "Crashed", "", 1}, kLater);
  ASSERT_EQ(conditions.size(), 2u);
  EXPECT_EQ(FindCondition(conditions, "Ready")->reason, "Loading");
  EXPECT_EQ(FindCondition(conditions, "Available"), nullptr);
}

TEST(Conditions, CutLongMessagesAtACharacter) {
  std::vector<Condition> conditions;
  std::string message(32767, 'x');
  message += "\xE4\xB8\x96";  // one character of three bytes over the limit
  SetCondition(conditions, {"Ready", "False", "Loading", message, 1}, kStart);
  EXPECT_EQ(conditions[0].message, std::string(32767, 'x'));
}

TEST(Conditions, RoundTripThroughJson) {
  const Condition condition{"Ready", "True", "Serving", "2 of 2", 7, "2026-01-01T00:00:00Z"};
  EXPECT_EQ(ConditionFromJson(ToJson(condition)), condition);
  EXPECT_EQ(ConditionFromJson(nlohmann::json{{"type", 3}}), Condition{});
}

}  // namespace
}  // namespace quern::control
