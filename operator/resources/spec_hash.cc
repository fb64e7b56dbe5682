#include "operator/resources/spec_hash.h"

#include <fmt/format.h>

#include "operator/api/json.h"

namespace quern::control {

std::string SpecHash(const nlohmann::json& object) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const unsigned char byte : object.dump()) {
    hash ^= byte;
    hash *= 0x100000001b3ULL;
  }
  return fmt::format("{:016x}", hash);
}

void AddSpecHash(nlohmann::json& object) {
  const std::string hash = SpecHash(object);
  object["metadata"]["annotations"][kSpecHashAnnotation] = hash;
}

std::string SpecHashOf(const nlohmann::json& object) {
  return StringAt(object, {"metadata", "annotations", kSpecHashAnnotation});
}

bool Covers(const nlohmann::json& live, const nlohmann::json& wanted) {
  if (wanted.is_object()) {
    if (!live.is_object()) return wanted.empty() && live.is_null();
    for (const auto& [key, value] : wanted.items()) {
      const auto it = live.find(key);
      if (it == live.end()) {
        // The API server drops empty objects and arrays.
        if (value.is_structured() && value.empty()) continue;
        return false;
      }
      if (!Covers(*it, value)) return false;
    }
    return true;
  }
  if (wanted.is_array()) {
    if (!live.is_array() || live.size() != wanted.size()) return false;
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (!Covers(live[i], wanted[i])) return false;
    }
    return true;
  }
  return live == wanted;
}

}  // namespace quern::control
