#include "runtime/server/access.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <string_view>
#include <utility>

#include "runtime/server/api_error.h"

namespace quern::server {
namespace {

// Coarser than the steps of any file system's times: within it two versions of one size may have
// the same.
constexpr time_t kSettleSeconds = 2;

class File {
 public:
  // A FIFO in the file's place must not block: nothing waits for a writer.
  explicit File(const std::string& path)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

Error FileError(const std::string& path, std::string_view what, int number) {
  const ErrorCode code = number == ENOENT   ? ErrorCode::kNotFound
                         : number == EACCES ? ErrorCode::kPermissionDenied
                                            : ErrorCode::kInvalidArgument;
  return MakeError(code, "{}: {}: {}", path, what, std::strerror(number));
}

bool SameTime(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

bool IsBearer(std::string_view scheme) {
  constexpr std::string_view kBearer = "bearer";
  return std::equal(scheme.begin(), scheme.end(), kBearer.begin(), kBearer.end(),
                    [](char a, char b) { return (a | 0x20) == b; });
}

// The token of the only Authorization field, if its scheme is Bearer (RFC 6750, 2.1; the scheme's
// name is compared without regard to case: RFC 9110, 11.1). Empty otherwise.
std::string_view BearerToken(const http::Headers& headers) {
  const std::string* value = http::FindHeader(headers, "Authorization");
  if (!value) return {};
  const std::string_view text = *value;
  const size_t space = text.find(' ');
  if (space == std::string_view::npos || !IsBearer(text.substr(0, space))) return {};
  if (http::CountHeaders(headers, "Authorization") > 1) return {};
  const size_t begin = text.find_first_not_of(' ', space);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(' ') + 1 - begin);
}

}  // namespace

bool Access::Version::operator==(const Version& other) const {
  return device == other.device && inode == other.inode && bytes == other.bytes &&
         SameTime(modified, other.modified) && SameTime(changed, other.changed);
}

Result<std::unique_ptr<Access>> Access::Open(std::string path, RuntimeMetrics& metrics,
                                             std::chrono::milliseconds interval) {
  auto access = std::unique_ptr<Access>(new Access(std::move(path), metrics));
  QUERN_TRY(access->Load());
  if (interval.count() > 0) {
    access->watcher_ = std::thread([self = access.get(), interval] { self->Watch(interval); });
  }
  return access;
}

Access::~Access() {
  {
    std::lock_guard lock(stop_mutex_);
    stopping_ = true;
  }
  stop_.notify_all();
  if (watcher_.joinable()) watcher_.join();
}

void Access::Watch(std::chrono::milliseconds interval) {
  std::unique_lock lock(stop_mutex_);
  while (!stop_.wait_for(lock, interval, [this] { return stopping_; })) {
    lock.unlock();
    try {
      CheckFile();
    } catch (const std::exception& error) {  // for want of memory: the next time may do
      spdlog::error("checking {} threw: {}", path_, error.what());
    }
    lock.lock();
  }
}

Result<Access::FileText> Access::Read(const std::string& path) {
  const File file(path);
  struct stat info {};
  if (file.fd() < 0 || fstat(file.fd(), &info) != 0) {
    return FileError(path, "cannot be opened", errno);
  }
  if (!S_ISREG(info.st_mode)) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: is not a regular file", path);
  }
  FileText read;
  read.version = {info.st_dev, info.st_ino, info.st_size, info.st_mtim, info.st_ctim};
  // One byte more than is allowed: the parser then says that it is too large.
  read.text.resize(kMaxTenantsFileBytes + 1);
  size_t size = 0;
  while (size < read.text.size()) {
    const ssize_t got = ::read(file.fd(), read.text.data() + size, read.text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileError(path, "cannot be read", errno);
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  read.text.resize(size);
  return read;
}

// Reads the file whatever is known of it; the tenants change if it is good and another one.
Status Access::Load() {
  settled_ = false;  // what follows may throw for want of memory: then the next check reads again
  QUERN_ASSIGN(const FileText file, Read(path_));
  version_ = file.version;
  const bool settled = std::time(nullptr) - version_.changed.tv_sec > kSettleSeconds;
  const Sha256 hash = Sha256Of(file.text);
  if (hash != text_hash_ || !last_complaint_.empty()) {
    auto table = TenantTable::Parse(file.text);
    if (!table) {
      settled_ = settled;
      return std::move(table).error().Within(path_);
    }
    Use(std::move(table).value());
    text_hash_ = hash;
  }
  settled_ = settled;
  return {};
}

void Access::Use(std::shared_ptr<const TenantTable> table) {
  std::vector<std::string> names;
  for (const auto& tenant : table->tenants()) names.push_back(tenant->name);
  metrics_.SetTenants(names);
  metrics_.SetTenantsFileValid(true);
  spdlog::info("tenants: {} with {} keys, from {}", names.size(), table->keys(), path_);
  std::lock_guard lock(table_mutex_);
  table_ = std::move(table);
}

void Access::CheckFile() {
  std::lock_guard lock(file_mutex_);
  struct stat info {};
  if (stat(path_.c_str(), &info) == 0) {
    const Version now{info.st_dev, info.st_ino, info.st_size, info.st_mtim, info.st_ctim};
    if (settled_ && now == version_) return;
  }
  const Status loaded = Load();
  if (loaded) {
    last_complaint_.clear();
    return;
  }
  if (loaded.error().message == last_complaint_) return;
  last_complaint_ = loaded.error().message;
  metrics_.SetTenantsFileValid(false);
  spdlog::error("the tenants stay as they were: {}", last_complaint_);
}

std::shared_ptr<const TenantTable> Access::table() const {
  std::lock_guard lock(table_mutex_);
  return table_;
}

std::shared_ptr<const Tenant> Access::Find(const http::Headers& headers) const {
  return table()->Find(BearerToken(headers));
}

std::optional<http::Response> Access::Refuse(const http::Request& head) const {
  const bool open = head.path.rfind("/health/", 0) == 0 || head.path == "/openapi.json";
  if (open || Find(head.headers)) return std::nullopt;
  return InvalidApiKey(head.headers);
}

http::Response InvalidApiKey(const http::Headers& headers) {
  ApiError error;
  error.status = 401;
  error.code = "invalid_api_key";
  if (!http::FindHeader(headers, "Authorization")) {
    error.message = "the request has no API key; send 'Authorization: Bearer KEY'";
  } else if (BearerToken(headers).empty()) {
    error.message = "the API key cannot be read; send it in one field 'Authorization: Bearer KEY'";
  } else {
    error.message =
        "the API key is not one that this server knows; send 'Authorization: Bearer KEY' with a "
        "key of yours";
  }
  http::Response response = ToResponse(error);
  response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

}  // namespace quern::server
