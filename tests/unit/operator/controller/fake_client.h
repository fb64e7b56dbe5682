#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "operator/kube/client.h"
#include "operator/kube/object.h"

namespace quern::control::testing {

using kube::json;

inline json Object(const std::string& name, const std::string& version, json spec = json::object(),
                   const std::string& uid = "") {
  return {{"apiVersion", "g/v1"},
          {"kind", "Thing"},
          {"metadata",
           {{"name", name},
            {"namespace", "ns"},
            {"uid", uid.empty() ? "uid-" + name : uid},
            {"resourceVersion", version}}},
          {"spec", std::move(spec)}};
}

inline const kube::ResourceType kThings{"g", "v1", "Thing", "things", true};

// Lists and watches as a test scripts them, one after the other; a watch beyond the script lasts
// until it is stopped. Single objects live in a map with resource versions, as the API server keeps
// them. Thread-safe.
class FakeClient : public kube::Client {
 public:
  using OnEvent = std::function<bool(const kube::WatchEvent&)>;
  using ListScript = std::function<Result<kube::ObjectList>(const kube::ListOptions&)>;
  using WatchScript =
      std::function<Status(const kube::WatchOptions&, const OnEvent&, std::stop_token)>;

  void OnList(ListScript script) { lists_.push_back(std::move(script)); }
  void OnList(std::vector<json> items, const std::string& version) {
    OnList([=](const kube::ListOptions&) { return kube::ObjectList{items, version}; });
  }
  void OnWatch(WatchScript script) { watches_.push_back(std::move(script)); }

  // Asked before each call on single objects; an error it returns is the call's.
  std::function<Status(const std::string& verb, const json& body)> intercept;

  json Find(const std::string& ns, const std::string& name) {
    const std::lock_guard lock(mutex_);
    const auto found = objects_.find({ns, name});
    return found == objects_.end() ? json() : found->second;
  }
  std::vector<json> All() {
    const std::lock_guard lock(mutex_);
    std::vector<json> out;
    for (const auto& [key, object] : objects_) out.push_back(object);
    return out;
  }
  void Erase(const std::string& ns, const std::string& name) {
    const std::lock_guard lock(mutex_);
    objects_.erase({ns, name});
  }

  Result<json> Get(const kube::ResourceType&, const std::string& ns,
                   const std::string& name) override {
    if (intercept) QUERN_TRY(intercept("get", json()));
    json object = Find(ns, name);
    if (object.is_null()) return MakeError(ErrorCode::kNotFound, "{} not found", name);
    return object;
  }
  Result<kube::ObjectList> List(const kube::ResourceType&, const std::string&,
                                const kube::ListOptions& options) override {
    ListScript script;
    {
      const std::lock_guard lock(mutex_);
      if (lists_.empty()) return MakeError(ErrorCode::kUnavailable, "no list is scripted");
      script = std::move(lists_.front());
      lists_.pop_front();
    }
    auto list = script(options);
    if (list && options.transform) {
      for (json& item : list->items) options.transform(item);
    }
    return list;
  }
  Result<json> Create(const kube::ResourceType&, const std::string& ns,
                      const json& object) override {
    if (intercept) QUERN_TRY(intercept("create", object));
    const std::lock_guard lock(mutex_);
    const std::string name = kube::ObjectName(object);
    if (objects_.contains({ns, name})) {
      return MakeError(ErrorCode::kAlreadyExists, "{} exists", name);
    }
    return Store(ns, name, object);
  }
  Result<json> Update(const kube::ResourceType&, const std::string& ns,
                      const json& object) override {
    if (intercept) QUERN_TRY(intercept("update", object));
    const std::lock_guard lock(mutex_);
    const std::string name = kube::ObjectName(object);
    const auto found = objects_.find({ns, name});
    if (found == objects_.end()) return MakeError(ErrorCode::kNotFound, "{} not found", name);
    if (kube::ObjectResourceVersion(found->second) != kube::ObjectResourceVersion(object)) {
      return MakeError(ErrorCode::kConflict, "{} was changed", name);
    }
    return Store(ns, name, object);
  }
  Result<json> Apply(const kube::ResourceType&, const std::string&, const json&,
                     const kube::ApplyOptions&) override {
    return MakeError(ErrorCode::kUnsupported, "apply is not faked");
  }
  Result<json> MergePatch(const kube::ResourceType&, const std::string& ns, const std::string& name,
                          const json& patch, const std::string&) override {
    if (intercept) QUERN_TRY(intercept("patch", patch));
    const std::lock_guard lock(mutex_);
    const auto found = objects_.find({ns, name});
    if (found == objects_.end()) return MakeError(ErrorCode::kNotFound, "{} not found", name);
    json object = found->second;
    object.merge_patch(patch);
    return Store(ns, name, object);
  }
  Status Delete(const kube::ResourceType&, const std::string& ns, const std::string& name,
                const kube::DeleteOptions&) override {
    Erase(ns, name);
    return {};
  }
  Status Watch(const kube::ResourceType&, const std::string&, const kube::WatchOptions& options,
               const OnEvent& on_event, std::stop_token stop) override {
    WatchScript script;
    {
      std::unique_lock lock(mutex_);
      if (watches_.empty()) {
        std::condition_variable_any never;
        never.wait(lock, stop, [] { return false; });
        return {};
      }
      script = std::move(watches_.front());
      watches_.pop_front();
    }
    return script(options, on_event, stop);
  }

 private:
  json Store(const std::string& ns, const std::string& name, json object) {
    object["metadata"]["resourceVersion"] = std::to_string(++version_);
    objects_[{ns, name}] = object;
    return object;
  }

  std::mutex mutex_;
  std::map<kube::ObjectKey, json> objects_;
  int version_ = 0;
  std::deque<ListScript> lists_;
  std::deque<WatchScript> watches_;
};

}  // namespace quern::control::testing
