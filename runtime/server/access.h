#pragma once

#include <chrono>
#include <condition_variable>
#include <ctime>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "runtime/base/result.h"
#include "runtime/http/message.h"
#include "runtime/metrics/runtime_metrics.h"
#include "runtime/server/tenant_table.h"

namespace quern::server {

// Who may use the API: the tenants of a file that is read again when it changes. A change is seen
// by the file's identity and times behind all symbolic links, as a Secret mounted by Kubernetes is
// swapped by one. A file that has become bad, or is gone, leaves the tenants as they were, is
// logged once and shows in quern_tenants_file_valid. Thread-safe; no key is ever logged.
class Access {
 public:
  // Reads the file, and looks for changes every `interval` on a thread of its own; 0: only when
  // CheckFile is called. `metrics` outlives this. Errors name the file and the place in it.
  static Result<std::unique_ptr<Access>> Open(std::string path, RuntimeMetrics& metrics,
                                              std::chrono::milliseconds interval);
  ~Access();
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;

  // The tenant that a request's one "Authorization: Bearer KEY" names, or null.
  std::shared_ptr<const Tenant> Find(const http::Headers& headers) const;

  // The answer to a request that may not go on, from its header alone: 401 for all paths but those
  // under /health/ and /openapi.json, which tells nothing of the server's own but its version,
  // without a tenant's key.
  std::optional<http::Response> Refuse(const http::Request& head) const;

  // Reads the file again if it has changed.
  void CheckFile();

  std::shared_ptr<const TenantTable> table() const;

 private:
  // What tells one version of the file from another without reading it.
  struct Version {
    dev_t device = 0;
    ino_t inode = 0;
    off_t bytes = 0;
    timespec modified{};
    timespec changed{};
    bool operator==(const Version& other) const;
  };
  struct FileText {
    Version version;
    std::string text;
  };

  Access(std::string path, RuntimeMetrics& metrics) : path_(std::move(path)), metrics_(metrics) {}
  static Result<FileText> Read(const std::string& path);
  Status Load();
  void Use(std::shared_ptr<const TenantTable> table);
  void Watch(std::chrono::milliseconds interval);

  const std::string path_;
  RuntimeMetrics& metrics_;

  std::mutex file_mutex_;  // the four below; one reader of the file at a time
  Version version_;
  Sha256 text_hash_{};
  bool settled_ = false;  // read so long after its last change that no later one can look alike
  std::string last_complaint_;  // empty while the file is good

  mutable std::mutex table_mutex_;
  std::shared_ptr<const TenantTable> table_;

  std::mutex stop_mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  std::thread watcher_;
};

// 401 invalid_api_key with WWW-Authenticate. Says what is missing, never what was sent.
http::Response InvalidApiKey(const http::Headers& headers);

}  // namespace quern::server
