#include "runtime/backend/cpu/aligned_memory.h"

#include <sys/mman.h>

namespace quern {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

AlignedMemory::AlignedMemory(size_t bytes) {
  if (bytes == 0) return;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return;
  // Best effort: some 5 % of attention over a long context go into looking up small pages.
  if (bytes >= kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
  data_ = static_cast<std::byte*>(memory);
  bytes_ = bytes;
}

AlignedMemory::~AlignedMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace quern
