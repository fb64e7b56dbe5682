#include "operator/resources/spec_hash.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "operator/api/json.h"
#include "operator/api/quantity.h"

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

namespace {

// Atomic to server-side apply, so that sending them makes them whole again; the API server fills in
// nothing there.
bool IsAtomic(std::string_view key) {
  return key == "selector" || key == "podSelector" || key == "nodeSelector" || key == "ingress";
}

bool HoldsQuantities(std::string_view key) { return key == "limits" || key == "requests"; }

// 1024Mi and 1Gi are the same amount, and the API server may keep either.
bool SameQuantity(const nlohmann::json& live, const nlohmann::json& wanted) {
  if (live == wanted) return true;
  if (!live.is_string() || !wanted.is_string()) return false;
  const auto a = ParseQuantity(live.get_ref<const std::string&>());
  const auto b = ParseQuantity(wanted.get_ref<const std::string&>());
  return a && b && std::abs(*a - *b) <= 1e-12 * std::max(std::abs(*a), std::abs(*b));
}

bool SameQuantities(const nlohmann::json& live, const nlohmann::json& wanted) {
  return live.is_object() &&
         std::all_of(wanted.items().begin(), wanted.items().end(), [&](const auto& item) {
           const auto it = live.find(item.key());
           return it != live.end() && SameQuantity(*it, item.value());
         });
}

bool CoversMember(std::string_view key, const nlohmann::json& live, const nlohmann::json& wanted) {
  if (HoldsQuantities(key) && wanted.is_object()) return SameQuantities(live, wanted);
  if (IsAtomic(key)) return Covers(live, wanted) && Covers(wanted, live);
  return Covers(live, wanted);
}

}  // namespace

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
      if (!CoversMember(key, *it, value)) return false;
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
