#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "operator/api/time.h"

namespace quern::control {

// metav1.Condition. `status` is "True", "False" or "Unknown"; `reason` is one CamelCase word.
struct Condition {
  std::string type;
  std::string status;
  std::string reason;
  std::string message;
  int64_t observed_generation = 0;
  std::string last_transition_time;  // RFC 3339; filled in by SetCondition

  bool operator==(const Condition&) const = default;
};

// Adds the condition, or replaces that of its type. lastTransitionTime moves only when `status`
// changes, so that it says since when, not when last looked at. Messages are cut at 32,768 bytes,
// the API's limit.
void SetCondition(std::vector<Condition>& conditions, Condition condition, WallTime now);

// The condition of that type, or nullptr.
const Condition* FindCondition(const std::vector<Condition>& conditions, std::string_view type);

nlohmann::json ToJson(const Condition& condition);

// Lenient: what is missing stays empty (the conditions may come from an older version).
Condition ConditionFromJson(const nlohmann::json& object);

}  // namespace quern::control
