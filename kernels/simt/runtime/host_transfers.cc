#include "kernels/simt/runtime/host_transfers.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/simt/machine.h"
#include "kernels/simt/runtime/pinned.h"

namespace quern::simt {
namespace {

constexpr uint8_t kPoison = 0xff;  // NaN in every format of floating point

// Memory of the host's that may be gone. False if it is.
bool ReadHost(void* to, const void* from, size_t bytes) {
  const iovec local{to, bytes};
  const iovec remote{const_cast<void*>(from), bytes};
  const ssize_t got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
  if (got >= 0 || errno == EFAULT) return got == static_cast<ssize_t>(bytes);
  std::memcpy(to, from, bytes);  // the call is not allowed here
  return true;
}

// The first byte of the rows that differs from `expected` (null: from the poison).
struct Difference {
  bool found = false;
  bool gone = false;
  size_t at = 0;
};
Difference Compare(const Rows& rows, const uint8_t* expected) {
  std::vector<uint8_t> row(rows.width);
  const std::vector<uint8_t> poison(expected == nullptr ? rows.width : 0, kPoison);
  for (size_t r = 0; r < rows.height; ++r) {
    if (!ReadHost(row.data(), rows.Row(r), rows.width)) return {true, true, r * rows.width};
    const uint8_t* right = expected == nullptr ? poison.data() : expected + r * rows.width;
    if (std::memcmp(row.data(), right, rows.width) == 0) continue;
    const auto differs = std::mismatch(row.begin(), row.end(), right).first - row.begin();
    return {true, false, r * rows.width + static_cast<size_t>(differs)};
  }
  return {};
}

bool Take(Task& task) {
  const Rows& rows = task.work.host;
  task.bytes.resize(rows.bytes());
  task.taken = true;
  for (size_t r = 0; r < rows.height; ++r) {
    if (ReadHost(task.bytes.data() + r * rows.width, rows.Row(r), rows.width)) continue;
    Machine::Get().ReportHostFault(Fault::kHostMemory,
                                   "the host's memory that is to be copied is not there", task);
    return false;
  }
  return true;
}

// Two copies of the same memory of the host's in no order, one of which writes it.
bool Races(const Task& task, const Task& old) {
  const bool writes = task.work.host_use == HostUse::kWrite || old.work.host_use == HostUse::kWrite;
  return writes && !task.After(old) && Overlap(task.work.host, old.work.host);
}

}  // namespace

bool Overlap(const Rows& a, const Rows& b) {
  if (a.bytes() == 0 || b.bytes() == 0) return false;
  if (a.first + a.extent() <= b.first || b.first + b.extent() <= a.first) return false;
  for (size_t r = 0; r < a.height; ++r) {
    const uint8_t* row = a.Row(r);
    if (row + a.width <= b.first) continue;
    // The last row of b that begins before this one's end.
    const auto before = static_cast<size_t>(row + a.width - 1 - b.first);
    const size_t last = b.height == 1 ? 0 : std::min(b.height - 1, before / b.pitch);
    if (b.Row(last) + b.width > row) return true;
  }
  return false;
}

bool HostTransfers::Begin(const TaskRef& task, bool host_functions) {
  const Work& work = task->work;
  bool shared = host_functions;
  for (const TaskRef& old : open_) {
    if (Races(*task, *old)) {
      Machine::Get().ReportHostFault(
          Fault::kRace, "host memory is in use by " + old->Text() + ": nothing orders that before",
          *task);
      return false;
    }
    shared = shared || Overlap(work.host, old->work.host);
  }
  open_.push_back(task);
  if (shared || work.host_waits) return true;
  if (work.host_use == HostUse::kRead) {
    if (!Take(*task)) return false;
  } else {
    for (size_t r = 0; r < work.host.height; ++r) {
      std::memset(work.host.Row(r), kPoison, work.host.width);
    }
    task->poisoned = true;
  }
  task->guarded = GuardPinned(work.host, work.host_use, *task);
  return true;
}

bool HostTransfers::Prepare(Task& task) {
  const bool reads = task.work.host_use == HostUse::kRead && !task.taken;
  if (task.work.kind != Work::Kind::kHostFunction && !reads) return true;
  return Settle(task.known) && (!reads || Take(task));
}

bool HostTransfers::Settle(const StreamClock& known) {
  bool right = true;
  std::erase_if(open_, [&](const TaskRef& task) {
    if (!task->done || !right || !known.Knows(task->stamp)) return false;
    right = Finish(*task);
    return true;
  });
  return right;
}

bool HostTransfers::Finish(Task& task) {
  const Work& work = task.work;
  const bool reads = work.host_use == HostUse::kRead;
  std::string touched;
  if (task.guarded) touched = UnguardPinned(task);
  const bool compare = touched.empty() && !work.host_waits && (reads || task.poisoned);
  if (compare) {
    const Difference difference = Compare(work.host, reads ? task.bytes.data() : nullptr);
    if (difference.gone) {
      touched = "is not there any more";
    } else if (difference.found) {
      touched = "was changed (from byte " + std::to_string(difference.at) + " on)";
    }
  }
  if (!touched.empty()) {
    Machine::Get().ReportHostFault(
        Fault::kHostMemory,
        "the host's memory that is " + std::string(reads ? "read" : "written") +
            " by an asynchronous copy " + touched + " before the host has waited for the copy",
        task);
    return false;
  }
  if (!reads) {
    for (size_t r = 0; r < work.host.height; ++r) {
      std::memcpy(work.host.Row(r), task.bytes.data() + r * work.host.width, work.host.width);
    }
  }
  task.bytes = {};
  return true;
}

bool HostTransfers::MayFree(const Rows& memory) {
  for (const TaskRef& task : open_) {
    if (!Overlap(task->work.host, memory)) continue;
    Machine::Get().ReportHostFault(
        Fault::kHostMemory,
        "cudaFreeHost of memory of an asynchronous copy that the host has not waited for", *task);
    return false;
  }
  return true;
}

void HostTransfers::Abandon() {
  for (const TaskRef& task : open_) {
    if (task->guarded) UnguardPinned(*task);
  }
  open_.clear();
}

}  // namespace quern::simt
