#include "runtime/formats/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>

namespace quern {
namespace {

Error OpenError(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return MakeError(ErrorCode::kNotFound, "{}: no such file: give the path of a .gguf file",
                       path);
    case EACCES:
    case EPERM:
      return MakeError(ErrorCode::kPermissionDenied,
                       "{}: may not be read by user {}: check its mode and those of its folders",
                       path, ::geteuid());
    default:
      return MakeError(ErrorCode::kUnavailable, "{}: cannot be opened: {}", path,
                       std::strerror(error));
  }
}

Status CheckKind(const std::string& path, const struct stat& info) {
  if (S_ISDIR(info.st_mode)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: is a directory: name the .gguf file inside it", path);
  }
  if (!S_ISREG(info.st_mode)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: is not a regular file: a model must be a file that can be mapped", path);
  }
  if (info.st_size == 0) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: is empty (0 bytes): fetch the model again",
                     path);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK so that a named pipe is refused below, not waited for.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return OpenError(path, errno);
  struct stat info {};
  if (::fstat(fd, &info) != 0) {
    const int error = errno;
    ::close(fd);
    return OpenError(path, error);
  }
  if (auto kind = CheckKind(path, info); !kind) {
    ::close(fd);
    return std::move(kind).error();
  }
  const auto size = static_cast<size_t>(info.st_size);
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (address == MAP_FAILED) {
    const int error = errno;
    ::close(fd);
    if (error == ENOMEM) {
      return MakeError(ErrorCode::kResourceExhausted,
                       "{}: its {} bytes cannot be mapped: raise this process's limit of address "
                       "space (ulimit -v)",
                       path, size);
    }
    return MakeError(ErrorCode::kUnavailable, "{}: cannot be mapped ({} bytes): {}", path, size,
                     std::strerror(error));
  }
  // Read ahead only: by default a page fault also reads what lies before it, and that may have been
  // released (with the 8 MiB of read-ahead that cloud disks have, 70 MiB of a model came back).
  ::madvise(address, size, MADV_SEQUENTIAL);
  return std::unique_ptr<MappedFile>(
      new MappedFile(fd, {static_cast<const std::byte*>(address), size}));
}

MappedFile::~MappedFile() {
  ReleasePages(bytes_);
  ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  ::close(fd_);
}

void MappedFile::ReleasePages(std::span<const std::byte> part) const {
  const auto base = reinterpret_cast<uintptr_t>(bytes_.data());
  const auto begin = reinterpret_cast<uintptr_t>(part.data());
  const auto end = begin + part.size();
  if (begin < base || end > base + bytes_.size()) return;
  // Only whole pages: the first and last may hold bytes of a neighbour. The file's last page is
  // whole if `part` reaches the end.
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const uintptr_t first = (begin + page - 1) / page * page;
  const uintptr_t last =
      end == base + bytes_.size() ? (end + page - 1) / page * page : end / page * page;
  if (first >= last) return;
  ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);  // NOLINT: whole pages
  // The page cache is charged to the cgroup too. It is kept in folios (of up to 2 MiB, where the
  // file system has large ones), and only those that lie wholly inside the range go: so the range
  // begins before the part, where an earlier one ended. Pages that somebody maps stay.
  constexpr uintptr_t kLargestFolio = uintptr_t{2} << 20;
  const uintptr_t offset = first - base;
  const uintptr_t from = offset - std::min(offset, kLargestFolio);
  ::posix_fadvise(fd_, static_cast<off_t>(from), static_cast<off_t>(last - base - from),
                  POSIX_FADV_DONTNEED);
}

}  // namespace quern
