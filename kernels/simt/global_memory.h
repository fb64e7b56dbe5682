#pragma once

#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/simt/shadow.h"

namespace quern::simt {

inline constexpr size_t kSectorBytes = 32;

// Global memory: allocations between margins that belong to nothing, and what is known of their
// bytes.
class GlobalMemory {
 public:
  static constexpr size_t kPageBytes = 4096;

  // 4 KiB, kept from its first use on. What is left of an earlier launch is forgotten when a later
  // one first looks.
  struct Page {
    uint64_t launch = 0;
    std::bitset<kPageBytes / kSectorBytes> sectors;  // touched in this launch
    std::vector<Cell> cells = std::vector<Cell>(kPageBytes / kCellBytes);
  };
  struct Allocation {
    uint8_t* memory;
    size_t bytes;
    std::unique_ptr<uint8_t[]> block;
    std::vector<std::unique_ptr<Page>> pages;

    Page& PageAt(size_t offset, uint64_t launch);
  };

  void* Allocate(size_t bytes);
  bool Free(void* pointer);
  // The allocation that holds the address, or null.
  Allocation* Find(uintptr_t address);
  void MarkWritten(const void* pointer, size_t bytes);
  // "16 bytes after the end of an allocation of 64 bytes"
  std::string Describe(uintptr_t address) const;
  // Different sectors that the launch touched.
  int64_t Sectors(uint64_t launch) const;

 private:
  std::map<uintptr_t, Allocation> allocations_;
  Allocation* last_ = nullptr;
};

}  // namespace quern::simt
