#include "runtime/backend/cpu/aligned_memory.h"

#include <sys/mman.h>

namespace quern {

AlignedMemory::AlignedMemory(size_t bytes, bool written_whole) {
  if (bytes == 0) return;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return;
  if (written_whole) madvise(memory, bytes, MADV_HUGEPAGE);  // advice: it may fail
  data_ = static_cast<std::byte*>(memory);
  bytes_ = bytes;
}

AlignedMemory::~AlignedMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace quern
