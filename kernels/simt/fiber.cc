#include "kernels/simt/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

namespace quern::simt {

StackPool::StackPool() {
  void* base = mmap(nullptr, kSlots * kSlotBytes, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<uint8_t*>(base);
}

StackPool::~StackPool() { munmap(base_, kSlots * kSlotBytes); }

Stack StackPool::Take() {
  if (!free_.empty()) {
    const Stack stack = free_.back();
    free_.pop_back();
    return stack;
  }
  if (used_ == kSlots) throw std::bad_alloc();
  uint8_t* slot = base_ + used_ * kSlotBytes;
  const auto guard = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  if (mprotect(slot + guard, kSlotBytes - guard, PROT_READ | PROT_WRITE) != 0) {
    throw std::bad_alloc();
  }
  ++used_;
  return {slot + guard, slot + kSlotBytes};
}

}  // namespace quern::simt
