#include "operator/kube/object.h"

namespace quern::control::kube {
namespace {

// The child `name` of an object, or null: json's own lookups throw on other types.
const json* Child(const json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

std::string ChildString(const json* object, const char* name) {
  const json* child = object == nullptr ? nullptr : Child(*object, name);
  return child != nullptr && child->is_string() ? child->get<std::string>() : "";
}

std::string MapEntry(const json& object, const char* map, const std::string& key) {
  const json* metadata = Child(object, "metadata");
  const json* entries = metadata == nullptr ? nullptr : Child(*metadata, map);
  return ChildString(entries, key.c_str());
}

}  // namespace

std::string ObjectName(const json& object) {
  return ChildString(Child(object, "metadata"), "name");
}
std::string ObjectNamespace(const json& object) {
  return ChildString(Child(object, "metadata"), "namespace");
}
std::string ObjectUid(const json& object) { return ChildString(Child(object, "metadata"), "uid"); }
std::string ObjectResourceVersion(const json& object) {
  return ChildString(Child(object, "metadata"), "resourceVersion");
}
std::string ObjectApiVersion(const json& object) { return ChildString(&object, "apiVersion"); }
std::string ObjectKind(const json& object) { return ChildString(&object, "kind"); }

int64_t ObjectGeneration(const json& object) {
  const json* metadata = Child(object, "metadata");
  const json* generation = metadata == nullptr ? nullptr : Child(*metadata, "generation");
  return generation != nullptr && generation->is_number_integer() ? generation->get<int64_t>() : 0;
}

bool IsBeingDeleted(const json& object) {
  return !ChildString(Child(object, "metadata"), "deletionTimestamp").empty();
}

ObjectKey KeyOf(const json& object) { return {ObjectNamespace(object), ObjectName(object)}; }

std::string ObjectLabel(const json& object, const std::string& key) {
  return MapEntry(object, "labels", key);
}
std::string ObjectAnnotation(const json& object, const std::string& key) {
  return MapEntry(object, "annotations", key);
}

std::optional<OwnerReference> ControllerOf(const json& object) {
  const json* metadata = Child(object, "metadata");
  const json* owners = metadata == nullptr ? nullptr : Child(*metadata, "ownerReferences");
  if (owners == nullptr || !owners->is_array()) return std::nullopt;
  for (const json& owner : *owners) {
    const json* controller = Child(owner, "controller");
    if (controller == nullptr || !controller->is_boolean() || !controller->get<bool>()) continue;
    return OwnerReference{ChildString(&owner, "apiVersion"), ChildString(&owner, "kind"),
                          ChildString(&owner, "name"), ChildString(&owner, "uid")};
  }
  return std::nullopt;
}

std::string StringAt(const json& object, const std::string& pointer) {
  const json* at = &object;
  size_t begin = 1;
  while (begin <= pointer.size()) {
    const size_t end = std::min(pointer.find('/', begin), pointer.size());
    at = Child(*at, pointer.substr(begin, end - begin).c_str());
    if (at == nullptr) return "";
    begin = end + 1;
  }
  return at->is_string() ? at->get<std::string>() : "";
}

}  // namespace quern::control::kube
