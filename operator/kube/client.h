#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "runtime/base/result.h"

namespace quern::control::kube {

using nlohmann::json;

// A resource as the API server's paths name it: {"apps", "v1", "Deployment", "deployments"}.
struct ResourceType {
  std::string group;  // "" is the core group
  std::string version;
  std::string kind;
  std::string plural;
  bool namespaced = true;
};

struct ListOptions {
  std::string label_selector;
  std::string field_selector;
  std::string resource_version;  // "" most recent, "0" whatever the server's cache has
  int limit = 50;                // page size; halved where a page is larger than the client takes
  // Applied to each item as its page comes in: what it drops never adds up.
  std::function<void(json&)> transform;
};

struct ObjectList {
  std::vector<json> items;       // all pages; apiVersion and kind filled in
  std::string resource_version;  // where a watch goes on from
};

struct ApplyOptions {
  std::string field_manager;
  bool force = true;         // take fields over from other managers
  bool must_create = false;  // kConflict where there is an object by that name already
  std::string subresource;   // "" or "status", "scale"
};

struct DeleteOptions {
  std::string propagation = "Background";  // or "Foreground", "Orphan"
  std::string uid;                         // delete only this incarnation
};

struct WatchOptions {
  std::string label_selector;
  std::string field_selector;
  std::string resource_version;
  std::chrono::seconds timeout{290};  // the server ends the watch then
};

struct WatchEvent {
  enum class Type { kAdded, kModified, kDeleted, kBookmark };
  Type type;
  json object;
};

// The Kubernetes API over HTTPS. Implementations are thread-safe; every call has a time limit.
// Errors by HTTP status: 400/422 kInvalidArgument, 401/403 kPermissionDenied, 404 kNotFound, 409
// kConflict or kAlreadyExists, 410 kExpired, 429 kResourceExhausted, 5xx and transport
// kUnavailable, time kDeadlineExceeded; the message is the server's Status.message with verb,
// resource and name in front. `ns` is "" for cluster-scoped resources and, in List and Watch, for
// all namespaces.
class Client {
 public:
  virtual ~Client() = default;
  virtual Result<json> Get(const ResourceType& type, const std::string& ns,
                           const std::string& name) = 0;
  virtual Result<ObjectList> List(const ResourceType& type, const std::string& ns,
                                  const ListOptions& options) = 0;
  virtual Result<json> Create(const ResourceType& type, const std::string& ns,
                              const json& object) = 0;
  // PUT with metadata.resourceVersion: kConflict when somebody else wrote first.
  virtual Result<json> Update(const ResourceType& type, const std::string& ns,
                              const json& object) = 0;
  // Server-side apply of object (metadata.name in it). With metadata.uid in it: kConflict where
  // there is none by that name, kInvalidArgument where there is another one.
  virtual Result<json> Apply(const ResourceType& type, const std::string& ns, const json& object,
                             const ApplyOptions& options) = 0;
  // JSON merge patch (RFC 7386).
  virtual Result<json> MergePatch(const ResourceType& type, const std::string& ns,
                                  const std::string& name, const json& patch,
                                  const std::string& subresource = "") = 0;
  // Deleting what is already gone is kNotFound.
  virtual Status Delete(const ResourceType& type, const std::string& ns, const std::string& name,
                        const DeleteOptions& options = {}) = 0;
  // Calls `on_event` for each event, on the calling thread, until it returns false, `stop` is asked
  // for, or the server ends the stream (all three: success). 410, as a status or inside the stream:
  // kExpired.
  virtual Status Watch(const ResourceType& type, const std::string& ns, const WatchOptions& options,
                       const std::function<bool(const WatchEvent&)>& on_event,
                       std::stop_token stop) = 0;
};

}  // namespace quern::control::kube
