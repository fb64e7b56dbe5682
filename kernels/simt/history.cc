#include "kernels/simt/history.h"

#include <algorithm>

#include "kernels/simt/program.h"

namespace quern::simt {

std::string Operation::Text() const {
  std::string text = name + " (operation " + std::to_string(number) + ", " + line;
  if (where.line != 0) text += ", " + SourcePath(where.file) + ":" + std::to_string(where.line);
  return text + ")";
}

void ByteRuns::Add(uint16_t cell, uint16_t mask) {
  if (mask == 0) return;
  if (!runs_.empty() && runs_.back().end == cell && runs_.back().mask == mask) {
    ++runs_.back().end;
  } else {
    runs_.push_back({cell, static_cast<uint16_t>(cell + 1), mask});
  }
}

std::optional<ByteRuns::Common> ByteRuns::Meets(const ByteRuns& other) const {
  size_t a = 0;
  size_t b = 0;
  while (a < runs_.size() && b < other.runs_.size()) {
    const Run& one = runs_[a];
    const Run& two = other.runs_[b];
    const uint16_t begin = std::max(one.begin, two.begin);
    const auto mask = static_cast<uint16_t>(one.mask & two.mask);
    if (begin < std::min(one.end, two.end) && mask != 0) return Common{begin, mask};
    one.end <= two.end ? ++a : ++b;
  }
  return {};
}

bool ByteRuns::Covers(const ByteRuns& other) const {
  size_t at = 0;
  for (const Run& run : other.runs_) {
    for (uint16_t cell = run.begin; cell < run.end;) {
      while (at < runs_.size() && runs_[at].end <= cell) ++at;
      if (at == runs_.size() || runs_[at].begin > cell || (run.mask & ~runs_[at].mask) != 0) {
        return false;
      }
      cell = std::min(run.end, runs_[at].end);
    }
  }
  return true;
}

namespace {

std::optional<PageHistory::Conflict> Between(const PageAccess& now, const PageAccess& old) {
  const struct {
    const ByteRuns& now;
    const ByteRuns& old;
    bool wrote;
    bool old_wrote;
  } pairs[] = {
      {now.written, old.written, true, true}, {now.written, old.atomic, true, true},
      {now.atomic, old.written, true, true},  {now.written, old.read, true, false},
      {now.atomic, old.read, true, false},    {now.read, old.written, false, true},
      {now.read, old.atomic, false, true},
  };
  for (const auto& pair : pairs) {
    const auto bytes = pair.now.Meets(pair.old);
    if (bytes) return PageHistory::Conflict{old.operation, *bytes, pair.wrote, pair.old_wrote};
  }
  return {};
}

}  // namespace

std::optional<PageHistory::Conflict> PageHistory::Add(PageAccess access) {
  for (const PageAccess& old : accesses_) {
    if (access.operation->After(*old.operation)) continue;
    if (auto conflict = Between(access, old)) return conflict;
  }
  std::erase_if(accesses_, [&access](const PageAccess& old) {
    return access.operation->After(*old.operation) && access.written.Covers(old.written) &&
           (access.written.Covers(old.read) || access.read.Covers(old.read)) &&
           (access.written.Covers(old.atomic) || access.atomic.Covers(old.atomic));
  });
  accesses_.push_back(std::move(access));
  return {};
}

const Operation* PageHistory::FirstNotBefore(const StreamClock& known) const {
  for (const PageAccess& access : accesses_) {
    if (!known.Knows(access.operation->stamp)) return access.operation.get();
  }
  return nullptr;
}

void PageHistory::Forget(const StreamClock& floor) {
  std::erase_if(accesses_, [&floor](const PageAccess& access) {
    return floor.Knows(access.operation->stamp);
  });
}

}  // namespace quern::simt
