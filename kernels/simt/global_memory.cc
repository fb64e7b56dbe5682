#include "kernels/simt/global_memory.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace quern::simt {
namespace {

constexpr size_t kMargin = 256;  // also the alignment
// What is freed is kept back up to this much, so that its addresses are not used again at once.
constexpr size_t kFreedBytes = size_t{64} << 20;
constexpr size_t kFreedCount = 4096;

uintptr_t AddressOf(const GlobalMemory::Allocation& allocation) {
  return reinterpret_cast<uintptr_t>(allocation.memory);
}

}  // namespace

void* GlobalMemory::Allocate(size_t bytes, OperationRef made) {
  std::unique_ptr<uint8_t[]> block(new (std::nothrow) uint8_t[bytes + 3 * kMargin]);
  if (block == nullptr) return nullptr;
  const uintptr_t raw = reinterpret_cast<uintptr_t>(block.get());
  uint8_t* memory = block.get() + ((raw + 2 * kMargin - 1) / kMargin * kMargin - raw);
  std::memset(memory, 0xa5, bytes);
  Allocation allocation{memory, bytes, std::move(block), {}, std::move(made), nullptr, {}};
  allocation.pages.resize((bytes + kPageBytes - 1) / kPageBytes);
  allocations_.emplace(reinterpret_cast<uintptr_t>(memory), std::move(allocation));
  bytes_used_ += bytes;
  return memory;
}

GlobalMemory::Allocation& GlobalMemory::Adopt(uint8_t* memory, size_t bytes,
                                              const std::string& name, bool constant) {
  Allocation allocation{memory, bytes, nullptr, {}, nullptr, nullptr, name, constant};
  allocation.pages.resize((bytes + kPageBytes - 1) / kPageBytes);
  const auto at = reinterpret_cast<uintptr_t>(memory);
  return allocations_.emplace(at, std::move(allocation)).first->second;
}

bool GlobalMemory::Free(void* pointer, const std::string& by) {
  const auto found = allocations_.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == allocations_.end() || found->second.block == nullptr) return false;
  Allocation& allocation = found->second;
  last_ = nullptr;
  touched_.clear();
  if (allocation.freed == nullptr) bytes_used_ -= allocation.bytes;
  freed_bytes_ += allocation.bytes;
  freed_order_.emplace(frees_, found->first);
  freed_.insert_or_assign(found->first,
                          Freed{allocation.bytes, std::move(allocation.block), by, frees_++});
  allocations_.erase(found);
  while (freed_bytes_ > kFreedBytes || freed_.size() > kFreedCount) ForgetFreed();
  return true;
}

void GlobalMemory::ForgetFreed() {
  const auto oldest = freed_.find(freed_order_.begin()->second);
  freed_order_.erase(freed_order_.begin());
  freed_bytes_ -= oldest->second.bytes;
  freed_.erase(oldest);
}

const std::pair<const uintptr_t, GlobalMemory::Freed>* GlobalMemory::FindFreed(
    uintptr_t address) const {
  const auto after = freed_.upper_bound(address);
  if (after == freed_.begin()) return nullptr;
  const auto& before = *std::prev(after);
  return address - before.first < before.second.bytes ? &before : nullptr;
}

GlobalMemory::Allocation* GlobalMemory::Find(uintptr_t address) {
  const auto holds = [address](const Allocation& allocation) {
    return address - AddressOf(allocation) < allocation.bytes;
  };
  if (last_ != nullptr && holds(*last_)) return last_;
  auto after = allocations_.upper_bound(address);
  if (after == allocations_.begin()) return nullptr;
  Allocation& before = std::prev(after)->second;
  if (!holds(before)) return nullptr;
  last_ = &before;
  return last_;
}

GlobalMemory::Allocation* GlobalMemory::Find(const void* pointer, size_t bytes) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  Allocation* found = Find(address);
  if (found == nullptr || address - AddressOf(*found) + bytes > found->bytes) return nullptr;
  return found;
}

uint64_t GlobalMemory::Begin() {
  touched_.clear();
  return ++number_;
}

GlobalMemory::Page& GlobalMemory::PageAt(Allocation& allocation, size_t offset) {
  std::unique_ptr<Page>& page = allocation.pages[offset / kPageBytes];
  if (page == nullptr) {
    page = std::make_unique<Page>();
    if (allocation.block == nullptr) {
      for (Cell& cell : page->cells) cell.written = 0xffff;
    }
  }
  if (page->number != number_) {
    page->number = number_;
    page->sectors.reset();
    for (Cell& cell : page->cells) cell.Forget();
    touched_.emplace_back(&allocation, offset / kPageBytes);
  }
  return *page;
}

std::string GlobalMemory::WhyNot(Allocation& allocation, const Operation& operation) {
  if (allocation.looked == number_) return "";
  allocation.looked = number_;
  if (allocation.made != nullptr && !operation.After(*allocation.made)) {
    return "that " + allocation.made->Text() + " makes; nothing orders this after it";
  }
  if (allocation.freed == nullptr) return "";
  return operation.After(*allocation.freed)
             ? "that " + allocation.freed->Text() + " has freed"
             : "that " + allocation.freed->Text() + " frees; nothing orders this before it";
}

int64_t GlobalMemory::Sectors() const {
  size_t sectors = 0;
  for (const auto& [allocation, page] : touched_)
    sectors += allocation->pages[page]->sectors.count();
  return static_cast<int64_t>(sectors);
}

std::optional<GlobalMemory::Conflict> GlobalMemory::End(const OperationRef& operation) {
  for (const auto& [allocation, number] : touched_) {
    Page& page = *allocation->pages[number];
    PageAccess access{operation, {}, {}, {}};
    for (size_t i = 0; i < page.cells.size(); ++i) {
      access.read.Add(static_cast<uint16_t>(i), page.cells[i].now_read);
      access.written.Add(static_cast<uint16_t>(i), page.cells[i].now_written);
      access.atomic.Add(static_cast<uint16_t>(i), page.cells[i].now_atomic);
    }
    if (access.read.empty() && access.written.empty() && access.atomic.empty()) continue;
    if (page.history.empty()) remembered_.emplace_back(AddressOf(*allocation), number);
    if (auto conflict = page.history.Add(std::move(access))) {
      const uint16_t cell = conflict->bytes.cell;
      return Conflict{AddressOf(*allocation) + number * kPageBytes + cell * size_t{kCellBytes},
                      std::move(*conflict), &page.cells[cell]};
    }
  }
  return {};
}

const Operation* GlobalMemory::EndLife(Allocation& allocation, OperationRef freed) {
  for (const auto& page : allocation.pages) {
    if (page == nullptr) continue;
    const Operation* user = page->history.FirstNotBefore(freed->known);
    if (user != nullptr) return user;
  }
  allocation.freed = std::move(freed);
  bytes_used_ -= allocation.bytes;
  return nullptr;
}

void GlobalMemory::Forget(const StreamClock& floor) {
  std::vector<uint8_t*> over;
  for (auto& [address, allocation] : allocations_) {
    if (allocation.freed != nullptr && floor.Knows(allocation.freed->stamp)) {
      over.push_back(allocation.memory);
    }
  }
  for (uint8_t* memory : over) Free(memory, Find(memory, 0)->freed->Text());
  std::erase_if(remembered_, [&](const auto& one) {
    const auto found = allocations_.find(one.first);
    // Freed; another allocation may lie there by now.
    if (found == allocations_.end() || one.second >= found->second.pages.size() ||
        found->second.pages[one.second] == nullptr) {
      return true;
    }
    PageHistory& history = found->second.pages[one.second]->history;
    history.Forget(floor);
    return history.empty();
  });
}

std::string GlobalMemory::Describe(uintptr_t address) const {
  const auto place = [](const Allocation& allocation, size_t distance, const char* relation) {
    return std::to_string(distance) + " bytes " + relation + " " +
           (allocation.block != nullptr ? "an allocation" : "the variable " + allocation.name) +
           " of " + std::to_string(allocation.bytes) + " bytes";
  };
  if (const auto* freed = FindFreed(address)) {
    return std::to_string(address - freed->first) + " bytes into an allocation of " +
           std::to_string(freed->second.bytes) + " bytes that " + freed->second.by + " has freed";
  }
  const auto after = allocations_.upper_bound(address);
  const Allocation* before = after == allocations_.begin() ? nullptr : &std::prev(after)->second;
  if (before != nullptr) {
    const size_t distance = address - AddressOf(*before);
    if (distance < before->bytes) return place(*before, distance, "into");
    const size_t past = distance - before->bytes;
    const size_t ahead = after == allocations_.end() ? SIZE_MAX : after->first - address;
    if (past <= ahead) return place(*before, past, "after the end of");
  }
  if (after == allocations_.end()) return "no allocation";
  return place(after->second, after->first - address, "before the start of");
}

}  // namespace quern::simt
