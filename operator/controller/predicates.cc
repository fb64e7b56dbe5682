#include "operator/controller/predicates.h"

namespace quern::control {
namespace {

// The object without what only tells of a state: status, and the parts of metadata that change with
// every write.
json WithoutStatus(const json& object) {
  json out = object;
  if (!out.is_object()) return out;
  out.erase("status");
  if (out.contains("metadata") && out["metadata"].is_object()) {
    out["metadata"].erase("resourceVersion");
    out["metadata"].erase("managedFields");
  }
  return out;
}

}  // namespace

bool ChangedMoreThanStatus(const Change& change) {
  if (!change.before || !change.after) return true;
  if (change.before == change.after) return true;  // a resync
  if (kube::ObjectGeneration(*change.before) != kube::ObjectGeneration(*change.after)) return true;
  return WithoutStatus(*change.before) != WithoutStatus(*change.after);
}

bool AnyChange(const Change&) { return true; }

std::optional<ObjectKey> OwnKey(const Change& change) { return change.key(); }

KeyMapper ControllerOwnerKey(std::string group, std::string kind) {
  return [group = std::move(group),
          kind = std::move(kind)](const Change& change) -> std::optional<ObjectKey> {
    const auto owner = kube::ControllerOf(change.object());
    if (!owner || owner->kind != kind || owner->name.empty()) return std::nullopt;
    const size_t slash = owner->api_version.find('/');
    const std::string owner_group =
        slash == std::string::npos ? "" : owner->api_version.substr(0, slash);
    if (owner_group != group) return std::nullopt;
    return ObjectKey{kube::ObjectNamespace(change.object()), owner->name};
  };
}

KeyMapper LabelKey(std::string label) {
  return [label = std::move(label)](const Change& change) -> std::optional<ObjectKey> {
    const std::string name = kube::ObjectLabel(change.object(), label);
    if (name.empty()) return std::nullopt;
    return ObjectKey{kube::ObjectNamespace(change.object()), name};
  };
}

}  // namespace quern::control
