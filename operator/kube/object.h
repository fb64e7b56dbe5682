#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace quern::control::kube {

using nlohmann::json;

// An object as the API server sent it. Shared and never changed once it is in a store.
using ObjectPtr = std::shared_ptr<const json>;

// Which object of a type: what a work queue holds and a store is indexed by. `ns` is "" for
// cluster-scoped objects.
struct ObjectKey {
  std::string ns;
  std::string name;

  auto operator<=>(const ObjectKey&) const = default;
  bool operator==(const ObjectKey&) const = default;
  std::string ToString() const { return ns.empty() ? name : ns + "/" + name; }
};

struct ObjectKeyHash {
  size_t operator()(const ObjectKey& key) const {
    return std::hash<std::string>()(key.ns) * 1000003u ^ std::hash<std::string>()(key.name);
  }
};

// Readers of the fields that every object has. All of them take any JSON, also a wrong one: what
// is missing or of another type reads as "" or 0, never as an exception.
std::string ObjectName(const json& object);
std::string ObjectNamespace(const json& object);
std::string ObjectUid(const json& object);
std::string ObjectResourceVersion(const json& object);
std::string ObjectApiVersion(const json& object);
std::string ObjectKind(const json& object);
int64_t ObjectGeneration(const json& object);
// metadata.deletionTimestamp is set: the object waits for its finalizers.
bool IsBeingDeleted(const json& object);
ObjectKey KeyOf(const json& object);
std::string ObjectLabel(const json& object, const std::string& key);       // "" where there is none
std::string ObjectAnnotation(const json& object, const std::string& key);  // "" where there is none

// metadata.ownerReferences, the one with controller: true.
struct OwnerReference {
  std::string api_version;
  std::string kind;
  std::string name;
  std::string uid;
};
std::optional<OwnerReference> ControllerOf(const json& object);

// The string at a JSON pointer such as "/status/phase"; "" where it is missing or no string.
std::string StringAt(const json& object, const std::string& pointer);

}  // namespace quern::control::kube
