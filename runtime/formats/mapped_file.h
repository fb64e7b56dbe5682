#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "runtime/base/result.h"

namespace quern {

// A whole regular file mapped read-only. Immutable, thread-safe. The bytes stay those of the file,
// so a file that somebody shortens while it is mapped raises SIGBUS on access: replace model files
// by rename.
class MappedFile {
 public:
  // Errors: kNotFound, kPermissionDenied, kInvalidArgument (a directory, a pipe, an empty file),
  // kResourceExhausted (no address space), kUnavailable.
  static Result<std::unique_ptr<MappedFile>> Open(const std::string& path);
  // Releases all pages, also those that were read ahead and never asked for.
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

  // Drops the whole pages inside `part` from this process and from the page cache, and from that
  // also what lies up to 2 MiB before it. Reading them again is allowed and reads the file. `part`
  // outside the mapping is ignored.
  void ReleasePages(std::span<const std::byte> part) const;

 private:
  MappedFile(int fd, std::span<const std::byte> bytes) : fd_(fd), bytes_(bytes) {}

  int fd_;
  std::span<const std::byte> bytes_;
};

}  // namespace quern
