#pragma once

#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/simt/history.h"
#include "kernels/simt/operation.h"
#include "kernels/simt/shadow.h"

namespace quern::simt {

inline constexpr size_t kSectorBytes = 32;

// Global memory: allocations between margins that belong to nothing, and what is known of their
// bytes.
class GlobalMemory {
 public:
  static constexpr size_t kPageBytes = 4096;

  // 4 KiB, kept from its first use on. What is left of an earlier operation's threads is forgotten
  // when a later one first looks.
  struct Page {
    uint64_t number = 0;                             // of the operation that looked last
    std::bitset<kPageBytes / kSectorBytes> sectors;  // touched in it
    std::vector<Cell> cells = std::vector<Cell>(kPageBytes / kCellBytes);
    PageHistory history;
  };
  struct Allocation {
    uint8_t* memory;
    size_t bytes;
    std::unique_ptr<uint8_t[]> block;  // null: a variable of the program's
    std::vector<std::unique_ptr<Page>> pages;
    OperationRef made;   // by cudaMallocAsync
    OperationRef freed;  // by cudaFreeAsync, until nothing that is still to come could have used it
    std::string name;    // of the variable
    bool constant = false;
    uint64_t looked = 0;  // the number of the operation that was last found to be in time
  };

  void* Allocate(size_t bytes, OperationRef made = nullptr);
  // A __device__ or __constant__ variable, for as long as the program runs. Its bytes count as
  // written.
  Allocation& Adopt(uint8_t* memory, size_t bytes, const std::string& name, bool constant);
  // `by`: for errors about it from then on. For a while the addresses are given to nobody else.
  bool Free(void* pointer, const std::string& by);
  // The allocation that holds the address, or null.
  Allocation* Find(uintptr_t address);
  // One of which the bytes, from the pointer on, lie in.
  Allocation* Find(const void* pointer, size_t bytes);
  // Whether the address was freed not long ago.
  bool WasFreed(uintptr_t address) const { return FindFreed(address) != nullptr; }
  // "16 bytes after the end of an allocation of 64 bytes"
  std::string Describe(uintptr_t address) const;
  // Of what has not been freed.
  size_t bytes_used() const { return bytes_used_; }

  // A kernel, copy or set begins: what is touched from now on, until another one begins, is its.
  uint64_t Begin();
  Page& PageAt(Allocation& allocation, size_t offset);
  // Why the operation comes too early or too late for the allocation; "" if it does not.
  std::string WhyNot(Allocation& allocation, const Operation& operation);
  // Different sectors that it has touched.
  int64_t Sectors() const;
  // The end of what Begin began: an access that is not ordered after that of an earlier operation,
  // else all are noted.
  struct Conflict {
    uintptr_t address;
    PageHistory::Conflict with;
    const Cell* cell;
  };
  std::optional<Conflict> End(const OperationRef& operation);

  // cudaFreeAsync at its turn: an operation that has used the memory, but is not before this one.
  const Operation* EndLife(Allocation& allocation, OperationRef freed);
  // All that is still to come knows `floor`: what is not needed any more is forgotten, and memory
  // given back that was freed.
  void Forget(const StreamClock& floor);

 private:
  struct Freed {
    size_t bytes;
    std::unique_ptr<uint8_t[]> block;
    std::string by;
    uint64_t order;
  };
  const std::pair<const uintptr_t, Freed>* FindFreed(uintptr_t address) const;
  void ForgetFreed();

  std::map<uintptr_t, Allocation> allocations_;
  Allocation* last_ = nullptr;
  size_t bytes_used_ = 0;
  std::map<uintptr_t, Freed> freed_;
  std::map<uint64_t, uintptr_t> freed_order_;
  size_t freed_bytes_ = 0;
  uint64_t frees_ = 0;
  uint64_t number_ = 0;
  std::vector<std::pair<Allocation*, size_t>> touched_;   // pages, since Begin
  std::vector<std::pair<uintptr_t, size_t>> remembered_;  // pages with a history, once
};

}  // namespace quern::simt
