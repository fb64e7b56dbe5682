#pragma once

#include <sys/stat.h>

#include <mutex>
#include <string>

#include "operator/kube/config.h"
#include "runtime/base/clock.h"

namespace quern::control::kube {

// The bearer token: fixed, or from a file that is read again when it has changed (the kubelet
// rotates service-account tokens), when a minute has passed, or when the server refused it.
// Thread-safe.
class TokenSource {
 public:
  explicit TokenSource(const ClientConfig& config, const Clock& clock = RealClock());

  // "" where there is none. A file that cannot be read leaves the token as it was.
  std::string Get();
  // The server refused `refused`: true when there is another one to try.
  bool Refresh(const std::string& refused);

 private:
  void ReadLocked();
  bool FileChangedLocked();

  const std::string file_;
  const Clock& clock_;
  std::mutex mutex_;
  std::string token_;
  SteadyTime read_at_{};
  struct timespec mtime_ {};
  ino_t inode_ = 0;
};

}  // namespace quern::control::kube
