#include <algorithm>
#include <string>

#include "kernels/simt/machine.h"

extern quern::simt::Index blockDim;
extern quern::simt::Index gridDim;

// Every access of a kernel to memory: whose it is, whether it may, what it must be ordered after.
namespace quern::simt {
namespace {

// Accesses that a cell remembers. Shared memory: all that there can be. Global memory: a race with
// an older read of many may be missed.
constexpr int kSharedLimit = 16 * kMaxBlockThreads;
constexpr Memory kGlobal = {16, 0};

const char* Verb(Touch touch) {
  switch (touch) {
    case Touch::kRead:
      return "read";
    case Touch::kWrite:
      return "write";
    case Touch::kAtomicRead:
      return "volatile read";
    case Touch::kAtomicWrite:
      return "atomic or volatile write";
  }
  return "?";
}

std::string Of(Touch touch, size_t bytes) {
  return std::string(Verb(touch)) + " of " + std::to_string(bytes) + " bytes";
}

std::string Hex(uintptr_t address) {
  char text[24];
  std::snprintf(text, sizeof(text), "0x%zx", address);
  return text;
}

}  // namespace

void Machine::CheckAligned(uintptr_t address, size_t bytes, Touch touch, Site site) {
  if (address % bytes == 0) return;
  Fail(Fault::kMisaligned,
       Of(touch, bytes) + " at " + Hex(address) + ", which is no multiple of " +
           std::to_string(bytes),
       site);
}

SharedLayout::Place Machine::FindShared(uintptr_t address, size_t bytes, Touch touch, Site site) {
  const SharedLayout::Place place = layout_->Find(address, bytes);
  if (place.offset < 0) {
    Fail(Fault::kOutOfBounds,
         Of(touch, bytes) + " of shared memory at " + layout_->Describe(address), site);
  }
  return place;
}

void Machine::TouchShared(Thread& thread, int64_t offset, size_t bytes, Touch touch, Site site) {
  const Memory memory{kSharedLimit, thread.block->threads.size()};
  ForCells(static_cast<uint64_t>(offset), bytes, [&](uint64_t at, uint16_t mask) {
    Cell& cell = thread.block->shared.At(*layout_, static_cast<int64_t>(at));
    const auto where = [&] { return layout_->DescribeOffset(static_cast<int64_t>(at)); };
    if ((cell.pending & mask) != 0) {
      Fail(Fault::kCopyNotWaited,
           Of(touch, bytes) + " of shared memory at " + where() + ", which a cp.async of " +
               Who(thread.block->number, cell.pending_thread) +
               " is still to write: that thread has not waited for it",
           site);
    }
    if (!IsWrite(touch) && (mask & ~cell.written) != 0) {
      Fail(Fault::kUninitialised,
           Of(touch, bytes) + " of shared memory at " + where() +
               ", which the block has not written",
           site);
    }
    Entry old{};
    if (Note(cell, thread.toucher(), touch, mask, site, memory, &old)) {
      Fail(Fault::kRace,
           Of(touch, bytes) + " of shared memory at " + where() + ", after a " + Verb(old.kind()) +
               " by " + Who(old.block, old.thread) + " at " + Mark(old.site) +
               ": no barrier orders them",
           site);
    }
    if (IsWrite(touch)) cell.written = static_cast<uint16_t>(cell.written | mask);
  });
}

GlobalMemory::Allocation* Machine::FindGlobal(uintptr_t address) {
  GlobalMemory::Allocation* found = global_.Find(address);
  if (found != nullptr || !Program::Get().InImage(address)) return found;
  const Program::Global* variable = Program::Get().FindGlobal(address);
  if (variable == nullptr || variable->address == reinterpret_cast<uintptr_t>(&blockDim) ||
      variable->address == reinterpret_cast<uintptr_t>(&gridDim)) {
    return nullptr;
  }
  // NOLINTNEXTLINE(performance-no-int-to-ptr): as the symbol table gives it
  auto* memory = reinterpret_cast<uint8_t*>(variable->address);
  return &global_.Adopt(memory, variable->bytes, variable->name, variable->constant);
}

void Machine::TouchGlobal(uintptr_t address, size_t bytes, Touch touch, Site site) {
  GlobalMemory::Allocation* allocation = global_.Find(address);
  const size_t offset =
      allocation == nullptr ? 0 : address - reinterpret_cast<uintptr_t>(allocation->memory);
  if (allocation == nullptr || offset + bytes > allocation->bytes) {
    const bool elsewhere = stacks_.Contains(address);
    Fail(global_.WasFreed(address) ? Fault::kUseAfterFree : Fault::kOutOfBounds,
         Of(touch, bytes) + " at " + Hex(address) +
             (elsewhere ? ", local memory of another thread"
                        : ", which is no device memory: " + global_.Describe(address)),
         site);
  }
  if (operation_ != nullptr) {
    const std::string why = global_.WhyNot(*allocation, *operation_);
    if (!why.empty()) {
      Fail(allocation->freed == nullptr ? Fault::kUseBeforeAllocation : Fault::kUseAfterFree,
           Of(touch, bytes) + " of global memory " + why, site);
    }
  }
  Thread& thread = *running.thread;
  ForCells(offset, bytes, [&](uint64_t at, uint16_t mask) {
    GlobalMemory::Page& page = global_.PageAt(*allocation, at);
    const size_t within = at % GlobalMemory::kPageBytes;
    page.sectors.set(within / kSectorBytes);
    Cell& cell = page.cells[within / kCellBytes];
    const auto where = [&] {
      return global_.Describe(reinterpret_cast<uintptr_t>(allocation->memory) + at);
    };
    if (!IsWrite(touch) && (mask & ~cell.written) != 0) {
      Fail(Fault::kUninitialised,
           Of(touch, bytes) + " of global memory " + where() + ", which nothing has written", site);
    }
    Entry old{};
    if (Note(cell, thread.toucher(), touch, mask, site, kGlobal, &old)) {
      Fail(Fault::kRace,
           Of(touch, bytes) + " of global memory " + where() + ", after a " + Verb(old.kind()) +
               " by " + Who(old.block, old.thread) + " at " + Mark(old.site) +
               ": neither a barrier nor atomics with fences order them",
           site);
    }
    if (IsWrite(touch)) {
      cell.written = static_cast<uint16_t>(cell.written | mask);
      uint16_t& now = IsAtomic(touch) ? cell.now_atomic : cell.now_written;
      now = static_cast<uint16_t>(now | mask);
    } else {
      cell.now_read = static_cast<uint16_t>(cell.now_read | mask);
    }
  });
}

void Machine::LogTraffic(Space space, bool write, uint64_t address, size_t bytes, Site site) {
  if (!options_.count_traffic) return;
  running.thread->warp->traffic.Add(running.thread->lane, site, space, write, address,
                                    static_cast<uint32_t>(bytes));
}

void Machine::Access(uintptr_t address, size_t bytes, Touch touch, bool vector, Site site) {
  Thread& thread = *running.thread;
  if (IsAtomic(touch)) MaybeYield(site);
  if (IsShared(address)) {
    if (vector) CheckAligned(address, bytes, touch, site);
    const SharedLayout::Place place = FindShared(address, bytes, touch, site);
    TouchShared(thread, place.offset, bytes, touch, site);
    LogTraffic(Space::kShared, IsWrite(touch), static_cast<uint64_t>(place.offset), bytes, site);
  } else {
    const uintptr_t arguments = reinterpret_cast<uintptr_t>(kernel_.arguments);
    if (address - arguments < kernel_.argument_bytes && !IsWrite(touch)) return;
    const GlobalMemory::Allocation* found = FindGlobal(address);
    if (!IsWrite(touch) && found == nullptr && Program::Get().InImage(address)) {
      return;  // a table of constants
    }
    if (vector) CheckAligned(address, bytes, touch, site);
    TouchGlobal(address, bytes, touch, site);
    if (found != nullptr && found->constant) return;  // has a cache of its own
    LogTraffic(Space::kGlobal, IsWrite(touch), address, bytes, site);
  }
  if (touch == Touch::kWrite) Progress();
}

}  // namespace quern::simt
