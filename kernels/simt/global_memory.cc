#include "kernels/simt/global_memory.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace quern::simt {
namespace {

constexpr size_t kMargin = 256;  // also the alignment

}  // namespace

GlobalMemory::Page& GlobalMemory::Allocation::PageAt(size_t offset, uint64_t launch) {
  std::unique_ptr<Page>& page = pages[offset / kPageBytes];
  if (page == nullptr) page = std::make_unique<Page>();
  if (page->launch != launch) {
    page->launch = launch;
    page->sectors.reset();
    for (Cell& cell : page->cells) cell.Forget();
  }
  return *page;
}

void* GlobalMemory::Allocate(size_t bytes) {
  std::unique_ptr<uint8_t[]> block(new (std::nothrow) uint8_t[bytes + 3 * kMargin]);
  if (block == nullptr) return nullptr;
  const uintptr_t raw = reinterpret_cast<uintptr_t>(block.get());
  uint8_t* memory = block.get() + ((raw + 2 * kMargin - 1) / kMargin * kMargin - raw);
  std::memset(memory, 0xa5, bytes);
  Allocation allocation{memory, bytes, std::move(block), {}};
  allocation.pages.resize((bytes + kPageBytes - 1) / kPageBytes);
  allocations_.emplace(reinterpret_cast<uintptr_t>(memory), std::move(allocation));
  return memory;
}

bool GlobalMemory::Free(void* pointer) {
  last_ = nullptr;
  return allocations_.erase(reinterpret_cast<uintptr_t>(pointer)) == 1;
}

GlobalMemory::Allocation* GlobalMemory::Find(uintptr_t address) {
  const auto holds = [address](const Allocation& allocation) {
    return address - reinterpret_cast<uintptr_t>(allocation.memory) < allocation.bytes;
  };
  if (last_ != nullptr && holds(*last_)) return last_;
  auto after = allocations_.upper_bound(address);
  if (after == allocations_.begin()) return nullptr;
  Allocation& before = std::prev(after)->second;
  if (!holds(before)) return nullptr;
  last_ = &before;
  return last_;
}

void GlobalMemory::MarkWritten(const void* pointer, size_t bytes) {
  Allocation* allocation = Find(reinterpret_cast<uintptr_t>(pointer));
  if (allocation == nullptr) return;
  size_t at = static_cast<size_t>(static_cast<const uint8_t*>(pointer) - allocation->memory);
  const size_t end = std::min(at + bytes, allocation->bytes);
  while (at < end) {
    Page& page = allocation->PageAt(at, 0);
    Cell& cell = page.cells[at % kPageBytes / kCellBytes];
    const size_t first = at % kCellBytes;
    const size_t count = std::min(kCellBytes - first, end - at);
    cell.written = static_cast<uint16_t>(cell.written | (((1u << count) - 1) << first));
    at += count;
  }
}

int64_t GlobalMemory::Sectors(uint64_t launch) const {
  size_t sectors = 0;
  for (const auto& [address, allocation] : allocations_) {
    for (const auto& page : allocation.pages) {
      if (page != nullptr && page->launch == launch) sectors += page->sectors.count();
    }
  }
  return static_cast<int64_t>(sectors);
}

std::string GlobalMemory::Describe(uintptr_t address) const {
  const auto place = [](const Allocation& allocation, size_t distance, const char* relation) {
    return std::to_string(distance) + " bytes " + relation + " an allocation of " +
           std::to_string(allocation.bytes) + " bytes";
  };
  const auto after = allocations_.upper_bound(address);
  const Allocation* before = after == allocations_.begin() ? nullptr : &std::prev(after)->second;
  if (before != nullptr) {
    const size_t distance = address - reinterpret_cast<uintptr_t>(before->memory);
    if (distance < before->bytes) return place(*before, distance, "into");
    const size_t past = distance - before->bytes;
    const size_t ahead = after == allocations_.end() ? SIZE_MAX : after->first - address;
    if (past <= ahead) return place(*before, past, "after the end of");
  }
  if (after == allocations_.end()) return "no allocation";
  return place(after->second, after->first - address, "before the start of");
}

}  // namespace quern::simt
