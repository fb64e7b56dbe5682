#include "operator/controller/store.h"

namespace quern::control {
namespace {

// Calls `visit` with each string that the object is indexed under: owners' uids, "label=value"s.
void ForEachOwner(const json& object, const std::function<void(const std::string&)>& visit) {
  static const json::json_pointer kOwners("/metadata/ownerReferences");
  if (!object.contains(kOwners) || !object[kOwners].is_array()) return;
  for (const json& owner : object[kOwners]) {
    const std::string uid = kube::StringAt(owner, "/uid");
    if (!uid.empty()) visit(uid);
  }
}

void ForEachLabel(const json& object, const std::function<void(const std::string&)>& visit) {
  static const json::json_pointer kLabels("/metadata/labels");
  if (!object.contains(kLabels) || !object[kLabels].is_object()) return;
  for (const auto& [label, value] : object[kLabels].items()) {
    if (value.is_string()) visit(label + "=" + value.get<std::string>());
  }
}

}  // namespace

ObjectPtr Store::Get(const std::string& ns, const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = objects_.find({ns, name});
  return found == objects_.end() ? nullptr : found->second;
}

std::vector<ObjectPtr> Store::List(const std::string& ns) const {
  const std::lock_guard lock(mutex_);
  std::vector<ObjectPtr> out;
  auto at = ns.empty() ? objects_.begin() : objects_.lower_bound({ns, ""});
  for (; at != objects_.end() && (ns.empty() || at->first.ns == ns); ++at) {
    out.push_back(at->second);
  }
  return out;
}

std::vector<ObjectPtr> Store::ListByOwner(const std::string& uid) const {
  const std::lock_guard lock(mutex_);
  return Collect(by_owner_, uid);
}

std::vector<ObjectPtr> Store::ListByLabel(const std::string& label,
                                          const std::string& value) const {
  const std::lock_guard lock(mutex_);
  return Collect(by_label_, label + "=" + value);
}

size_t Store::size() const {
  const std::lock_guard lock(mutex_);
  return objects_.size();
}

std::vector<Change> Store::Replace(std::vector<json> objects) {
  std::map<ObjectKey, ObjectPtr> next;
  for (json& object : objects) {
    ObjectKey key = kube::KeyOf(object);
    if (!key.name.empty()) next[key] = std::make_shared<const json>(std::move(object));
  }
  std::vector<Change> gone, come;
  const std::lock_guard lock(mutex_);
  for (const auto& [key, before] : objects_) {
    const auto found = next.find(key);
    const bool same =
        found != next.end() && kube::ObjectUid(*found->second) == kube::ObjectUid(*before);
    // Deleted and made anew under the same name while nobody looked: a deletion, then an addition.
    if (!same) gone.push_back({before, nullptr});
  }
  for (auto& [key, after] : next) {
    const auto found = objects_.find(key);
    if (found == objects_.end() || kube::ObjectUid(*found->second) != kube::ObjectUid(*after)) {
      come.push_back({nullptr, after});
    } else if (kube::ObjectResourceVersion(*found->second) != kube::ObjectResourceVersion(*after)) {
      come.push_back({found->second, after});
    } else {
      after = found->second;
    }
  }
  objects_ = std::move(next);
  by_owner_.clear();
  by_label_.clear();
  for (const auto& [key, object] : objects_) Index(object);
  gone.insert(gone.end(), come.begin(), come.end());
  return gone;
}

std::vector<Change> Store::Put(json object) {
  const ObjectKey key = kube::KeyOf(object);
  if (key.name.empty()) return {};
  auto after = std::make_shared<const json>(std::move(object));
  const std::lock_guard lock(mutex_);
  ObjectPtr& slot = objects_[key];
  const ObjectPtr before = slot;
  if (before) Unindex(*before);
  slot = after;
  Index(after);
  if (before && kube::ObjectUid(*before) != kube::ObjectUid(*after)) {
    return {{before, nullptr}, {nullptr, after}};
  }
  return {{before, after}};
}

std::vector<Change> Store::Remove(const json& object) {
  const std::lock_guard lock(mutex_);
  const auto found = objects_.find(kube::KeyOf(object));
  if (found == objects_.end()) return {};
  Unindex(*found->second);
  objects_.erase(found);
  // The last state, not the one we knew: what came between is in it.
  return {{std::make_shared<const json>(object), nullptr}};
}

void Store::Index(const ObjectPtr& object) {
  const ObjectKey key = kube::KeyOf(*object);
  ForEachOwner(*object, [&](const std::string& uid) { by_owner_[uid].insert(key); });
  ForEachLabel(*object, [&](const std::string& label) { by_label_[label].insert(key); });
}

void Store::Unindex(const json& object) {
  const ObjectKey key = kube::KeyOf(object);
  const auto erase = [&](std::unordered_map<std::string, KeySet>& index, const std::string& entry) {
    const auto found = index.find(entry);
    if (found == index.end()) return;
    found->second.erase(key);
    if (found->second.empty()) index.erase(found);
  };
  ForEachOwner(object, [&](const std::string& uid) { erase(by_owner_, uid); });
  ForEachLabel(object, [&](const std::string& label) { erase(by_label_, label); });
}

std::vector<ObjectPtr> Store::Collect(const std::unordered_map<std::string, KeySet>& index,
                                      const std::string& entry) const {
  std::vector<ObjectPtr> out;
  const auto found = index.find(entry);
  if (found == index.end()) return out;
  for (const ObjectKey& key : found->second) out.push_back(objects_.at(key));
  return out;
}

}  // namespace quern::control
