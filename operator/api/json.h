#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace quern::control {

using nlohmann::json;

// Walks objects by key. nullptr when a key on the way is missing or not an object. Never throws, so
// that an object of a foreign version can be read without knowing its shape.
inline const json* Find(const json& object, std::initializer_list<const char*> path) {
  const json* at = &object;
  for (const char* key : path) {
    if (!at->is_object()) return nullptr;
    const auto it = at->find(key);
    if (it == at->end()) return nullptr;
    at = &*it;
  }
  return at;
}

// The string there, or "" when it is missing or something else.
inline std::string StringAt(const json& object, std::initializer_list<const char*> path) {
  const json* at = Find(object, path);
  return at != nullptr && at->is_string() ? at->get<std::string>() : std::string();
}

// The whole number there, or empty.
inline std::optional<int64_t> IntAt(const json& object, std::initializer_list<const char*> path) {
  const json* at = Find(object, path);
  if (at == nullptr || !at->is_number_integer()) return std::nullopt;
  if (at->is_number_unsigned() && at->get<uint64_t>() > INT64_MAX) return std::nullopt;
  return at->get<int64_t>();
}

inline bool BoolAt(const json& object, std::initializer_list<const char*> path) {
  const json* at = Find(object, path);
  return at != nullptr && at->is_boolean() && at->get<bool>();
}

// The array there, or an empty one.
inline const json& ArrayAt(const json& object, std::initializer_list<const char*> path) {
  static const json empty = json::array();
  const json* at = Find(object, path);
  return at != nullptr && at->is_array() ? *at : empty;
}

}  // namespace quern::control
