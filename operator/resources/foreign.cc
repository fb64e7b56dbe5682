#include "operator/resources/foreign.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "operator/api/json.h"

namespace quern::control {
namespace {

// Paths are kinds and keys; an element of a list has the list's path.
struct ForbiddenFields {
  std::string_view path;
  std::initializer_list<const char*> keys;
};
const ForbiddenFields kForbidden[] = {
    {"NetworkPolicy/spec", {"egress"}},
    {"Service/spec", {"externalIPs", "publishNotReadyAddresses"}},
    {"Deployment/spec", {"paused"}},  // nothing that the endpoint says would be rolled out
    {"Deployment/spec/template/spec",
     {"initContainers", "hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"}},
    {"Deployment/spec/template/spec/containers", {"command", "env", "envFrom", "volumeDevices"}},
    {"Deployment/spec/template/spec/containers/ports", {"hostPort", "hostIP"}},
};

// Objects that hold what the operator says and nothing else; the API server fills in nothing here.
constexpr std::string_view kClosed[] = {
    "Deployment/spec/template/spec/securityContext",
    "Deployment/spec/template/spec/containers/securityContext",
    "Deployment/spec/template/spec/containers/lifecycle",
};

// Lists whose elements belong to whoever added them, and what an element is known by.
struct SharedList {
  std::string_view path;
  std::initializer_list<const char*> keys;
};
const SharedList kSharedLists[] = {
    {"Service/spec/ports", {"port", "protocol"}},
    {"Deployment/spec/template/spec/volumes", {"name"}},
    {"Deployment/spec/template/spec/containers", {"name"}},
    {"Deployment/spec/template/spec/containers/volumeMounts", {"mountPath"}},
    {"Deployment/spec/template/spec/containers/ports", {"containerPort", "protocol"}},
};

bool IsClosed(std::string_view path) {
  return std::any_of(std::begin(kClosed), std::end(kClosed), [&](std::string_view closed) {
    return path == closed || (path.starts_with(closed) && path[closed.size()] == '/');
  });
}

bool IsForbidden(std::string_view path, std::string_view key) {
  for (const ForbiddenFields& fields : kForbidden) {
    if (fields.path != path) continue;
    if (std::find(fields.keys.begin(), fields.keys.end(), key) != fields.keys.end()) return true;
  }
  return false;
}

const SharedList* SharedListAt(std::string_view path) {
  const auto* found = std::find_if(std::begin(kSharedLists), std::end(kSharedLists),
                                   [&](const SharedList& list) { return list.path == path; });
  return found == std::end(kSharedLists) ? nullptr : found;
}

// The element of `elements` that is known by the same keys, or nullptr.
const json* Counterpart(const json& elements, const json& element, const SharedList& list) {
  for (const json& candidate : elements) {
    const bool same = std::all_of(list.keys.begin(), list.keys.end(), [&](const char* key) {
      const json* one = Find(candidate, {key});
      const json* other = Find(element, {key});
      return one != nullptr && other != nullptr && *one == *other;
    });
    if (same) return &candidate;
  }
  return nullptr;
}

void Strip(json& live, const json& wanted, const std::string& path);

void StripList(json& live, const json& wanted, const SharedList& list, const std::string& path) {
  const bool foreign = std::any_of(live.begin(), live.end(), [&](const json& element) {
    return Counterpart(wanted, element, list) == nullptr;
  });
  if (foreign) {
    // What is missing comes in the same step: a list that is empty in between may not be valid.
    json kept = json::array();
    for (const json& element : wanted) {
      const json* present = Counterpart(live, element, list);
      kept.push_back(present != nullptr ? *present : element);
    }
    live = std::move(kept);
  }
  for (json& element : live) Strip(element, *Counterpart(wanted, element, list), path);
}

void Strip(json& live, const json& wanted, const std::string& path) {
  const SharedList* list = live.is_array() && wanted.is_array() ? SharedListAt(path) : nullptr;
  if (list != nullptr) return StripList(live, wanted, *list, path);
  if (!live.is_object() || !wanted.is_object()) return;
  const bool closed = IsClosed(path);
  for (auto it = live.begin(); it != live.end();) {
    const auto ours = wanted.find(it.key());
    if (ours == wanted.end() && (closed || IsForbidden(path, it.key()))) {
      it = live.erase(it);
      continue;
    }
    if (ours != wanted.end()) Strip(*it, *ours, path + "/" + it.key());
    ++it;
  }
}

}  // namespace

json WithoutForeign(const json& live, const json& wanted) {
  json out = live;
  if (!out.is_object() || !out.contains("spec") || !wanted.contains("spec")) return out;
  Strip(out["spec"], wanted["spec"], StringAt(wanted, {"kind"}) + "/spec");
  return out;
}

json MergePatchBetween(const json& from, const json& to) {
  json patch = json::object();
  for (const auto& [key, value] : from.items()) {
    if (!to.contains(key)) patch[key] = nullptr;
  }
  for (const auto& [key, value] : to.items()) {
    const auto before = from.find(key);
    if (before != from.end() && *before == value) continue;
    const bool descend = before != from.end() && before->is_object() && value.is_object();
    patch[key] = descend ? MergePatchBetween(*before, value) : value;
  }
  return patch;
}

}  // namespace quern::control
