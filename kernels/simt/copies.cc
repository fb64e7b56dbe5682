#include <algorithm>
#include <cstring>

#include "kernels/simt/machine.h"

// cp.async. A copy's bytes come no sooner than its thread waits for them: until then the place they
// go to may not be touched, and what is read from global memory may be read at any time between.
namespace quern::simt {
namespace {

void Complete(Machine& machine, const PendingCopy& copy) {
  Thread& thread = machine.current();
  if (copy.read) {
    std::memcpy(copy.to, copy.data.data(), static_cast<size_t>(copy.bytes));
  } else {
    const auto bytes = static_cast<size_t>(copy.bytes);
    machine.TouchGlobal(reinterpret_cast<uintptr_t>(copy.from), bytes, Touch::kRead, copy.site);
    std::memcpy(copy.to, copy.from, bytes);
  }
  Cell& cell = thread.block->shared.At(machine.layout(), copy.offset);
  const auto mask = static_cast<uint16_t>(((1u << copy.bytes) - 1) << copy.offset % kCellBytes);
  cell.pending = static_cast<uint16_t>(cell.pending & ~mask);
  machine.TouchShared(thread, copy.offset, static_cast<size_t>(copy.bytes), Touch::kWrite,
                      copy.site);
}

void CompleteUpTo(int64_t group) {
  Machine& machine = Machine::Get();
  std::vector<PendingCopy>& copies = machine.current().copies;
  const auto end = std::find_if(copies.begin(), copies.end(),
                                [group](const PendingCopy& copy) { return copy.group > group; });
  for (auto copy = copies.begin(); copy != end; ++copy) Complete(machine, *copy);
  copies.erase(copies.begin(), end);
}

}  // namespace

void CopyAsync(void* shared, const void* global, int bytes, bool valid) {
  Machine& machine = Machine::Get();
  Thread& thread = machine.current();
  const Site where = Program::SiteOf(__builtin_return_address(0));
  const auto size = static_cast<size_t>(bytes);
  const uintptr_t to = reinterpret_cast<uintptr_t>(shared);
  const uintptr_t from = reinterpret_cast<uintptr_t>(global);
  if (!machine.IsShared(to)) {
    machine.Fail(Fault::kOutOfBounds, "cp.async to an address that is not of shared memory", where);
  }
  machine.CheckAligned(to, size, Touch::kWrite, where);
  machine.CheckAligned(from, size, Touch::kRead, where);
  const SharedLayout::Place place = machine.FindShared(to, size, Touch::kWrite, where);
  PendingCopy copy{place.memory,
                   static_cast<const uint8_t*>(global),
                   {},
                   bytes,
                   true,
                   place.offset,
                   thread.copy_group,
                   where};
  if (valid) {
    machine.TouchGlobal(from, size, Touch::kRead, where);
    machine.LogTraffic(Space::kGlobal, false, from, size, where);
    copy.read = machine.options().seed == 0 || machine.Random() % 2 == 0;
    if (copy.read) std::memcpy(copy.data.data(), global, size);
  }
  machine.TouchShared(thread, place.offset, size, Touch::kWrite, where);
  machine.LogTraffic(Space::kShared, true, static_cast<uint64_t>(place.offset), size, where);
  Cell& cell = thread.block->shared.At(machine.layout(), place.offset);
  const auto mask = static_cast<uint16_t>(((1u << bytes) - 1) << place.offset % kCellBytes);
  cell.pending = static_cast<uint16_t>(cell.pending | mask);
  cell.pending_thread = static_cast<uint16_t>(thread.number);
  thread.copies.push_back(copy);
  ++machine.counts().async_copies;
}

void CommitCopies() { ++Machine::Get().current().copy_group; }

void WaitForCopies(int groups_left) {
  CompleteUpTo(Machine::Get().current().copy_group - 1 - groups_left);
}

void WaitForAllCopies() {
  CommitCopies();
  WaitForCopies(0);
}

}  // namespace quern::simt
