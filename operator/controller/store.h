#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "operator/kube/object.h"

namespace quern::control {

using kube::json;
using kube::ObjectKey;
using kube::ObjectPtr;

// What happened to one object. Added: no `before`. Deleted: no `after`. Both the same: a resync.
struct Change {
  ObjectPtr before;
  ObjectPtr after;

  const json& object() const { return after ? *after : *before; }
  ObjectKey key() const { return kube::KeyOf(object()); }
};

// The cluster's objects of one type, as an informer last heard of them. Thread-safe; what it hands
// out is shared and never changes. Its size is what the API server holds.
class Store {
 public:
  // Null where there is none.
  ObjectPtr Get(const std::string& ns, const std::string& name) const;
  ObjectPtr Get(const ObjectKey& key) const { return Get(key.ns, key.name); }
  // In order of namespace and name; `ns` "" for all namespaces.
  std::vector<ObjectPtr> List(const std::string& ns = "") const;
  // Objects with an owner reference (controller or not) of this uid.
  std::vector<ObjectPtr> ListByOwner(const std::string& uid) const;
  // Objects with exactly this label.
  std::vector<ObjectPtr> ListByLabel(const std::string& label, const std::string& value) const;
  size_t size() const;

  // The whole content at once, as listed. Returns what is different from before, deletions first:
  // those that no watch told of are found here.
  std::vector<Change> Replace(std::vector<json> objects);
  // One added or modified object; one removed object (its last state). An object without a name is
  // ignored.
  std::vector<Change> Put(json object);
  std::vector<Change> Remove(const json& object);

 private:
  using KeySet = std::set<ObjectKey>;

  void Index(const ObjectPtr& object);
  void Unindex(const json& object);
  std::vector<ObjectPtr> Collect(const std::unordered_map<std::string, KeySet>& index,
                                 const std::string& entry) const;

  mutable std::mutex mutex_;
  std::map<ObjectKey, ObjectPtr> objects_;
  std::unordered_map<std::string, KeySet> by_owner_;
  std::unordered_map<std::string, KeySet> by_label_;  // "label=value"
};

}  // namespace quern::control
