#include "operator/kube/token_source.h"

#include <spdlog/spdlog.h>

#include <fstream>

namespace quern::control::kube {
namespace {

constexpr std::chrono::seconds kReadAnyway{60};  // where mtimes lie, as on some volumes
constexpr size_t kMaxTokenBytes = 64 << 10;

}  // namespace

TokenSource::TokenSource(const ClientConfig& config, const Clock& clock)
    : file_(config.token_file), clock_(clock), token_(config.token) {
  const std::lock_guard lock(mutex_);
  if (!file_.empty()) ReadLocked();
}

std::string TokenSource::Get() {
  const std::lock_guard lock(mutex_);
  if (!file_.empty() && (FileChangedLocked() || clock_.Now() - read_at_ >= kReadAnyway)) {
    ReadLocked();
  }
  return token_;
}

bool TokenSource::Refresh(const std::string& refused) {
  const std::lock_guard lock(mutex_);
  if (!file_.empty() && token_ == refused) ReadLocked();
  return token_ != refused;
}

bool TokenSource::FileChangedLocked() {
  struct stat now {};
  if (stat(file_.c_str(), &now) != 0) return false;
  return now.st_ino != inode_ || now.st_mtim.tv_sec != mtime_.tv_sec ||
         now.st_mtim.tv_nsec != mtime_.tv_nsec;
}

void TokenSource::ReadLocked() {
  read_at_ = clock_.Now();
  struct stat now {};
  if (stat(file_.c_str(), &now) == 0) {
    inode_ = now.st_ino;
    mtime_ = now.st_mtim;
  }
  std::ifstream file(file_, std::ios::binary);
  std::string text(kMaxTokenBytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  const size_t end = text.find_last_not_of(" \t\r\n");
  text.resize(end == std::string::npos ? 0 : end + 1);
  // A header can carry no line breaks: such a token would break the request apart.
  const bool usable = !text.empty() && text.find_first_of("\r\n") == std::string::npos;
  if (usable) {
    token_ = std::move(text);
  } else {
    spdlog::warn(
        "token file {}: empty, unreadable or of several lines; the last token stays in use", file_);
  }
}

}  // namespace quern::control::kube
