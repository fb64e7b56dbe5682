#include "operator/api/conditions.h"

#include <algorithm>

#include "operator/api/json.h"

namespace quern::control {
namespace {

constexpr size_t kMaxMessage = 32768;

// Cuts at a character's first byte, so that the result stays UTF-8.
void Truncate(std::string& text, size_t limit) {
  if (text.size() <= limit) return;
  size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  text.resize(end);
}

}  // namespace

void SetCondition(std::vector<Condition>& conditions, Condition condition, WallTime now) {
  Truncate(condition.message, kMaxMessage);
  auto it = std::find_if(conditions.begin(), conditions.end(),
                         [&](const Condition& c) { return c.type == condition.type; });
  if (it == conditions.end()) {
    condition.last_transition_time = FormatTime(now);
    conditions.push_back(std::move(condition));
    return;
  }
  const bool same = it->status == condition.status && !it->last_transition_time.empty();
  condition.last_transition_time = same ? it->last_transition_time : FormatTime(now);
  *it = std::move(condition);
}

const Condition* FindCondition(const std::vector<Condition>& conditions, std::string_view type) {
  for (const Condition& condition : conditions) {
    if (condition.type == type) return &condition;
  }
  return nullptr;
}

nlohmann::json ToJson(const Condition& c) {
  return {{"type", c.type},
          {"status", c.status},
          {"reason", c.reason},
          {"message", c.message},
          {"observedGeneration", c.observed_generation},
          {"lastTransitionTime", c.last_transition_time}};
}

Condition ConditionFromJson(const nlohmann::json& object) {
  Condition c;
  c.type = StringAt(object, {"type"});
  c.status = StringAt(object, {"status"});
  c.reason = StringAt(object, {"reason"});
  c.message = StringAt(object, {"message"});
  c.observed_generation = IntAt(object, {"observedGeneration"}).value_or(0);
  c.last_transition_time = StringAt(object, {"lastTransitionTime"});
  return c;
}

}  // namespace quern::control
