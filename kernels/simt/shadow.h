#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/simt/clock.h"

namespace quern::simt {

// How memory is touched. Atomic also stands for volatile: what is meant to meet other threads.
enum class Touch : uint8_t { kRead = 0, kWrite = 1, kAtomicRead = 2, kAtomicWrite = 3 };
constexpr bool IsWrite(Touch touch) { return (static_cast<int>(touch) & 1) != 0; }
constexpr bool IsAtomic(Touch touch) { return (static_cast<int>(touch) & 2) != 0; }

// Where the code is: an address within the program, from its start.
using Site = uint32_t;

// An access to some of a cell's 16 bytes that later ones must be ordered after.
struct Entry {
  Site site;
  uint32_t block;
  uint32_t epoch;
  uint16_t mask;
  uint16_t thread : 14;
  uint16_t touch : 2;

  Touch kind() const { return static_cast<Touch>(touch); }
};

// The last read by each thread of a block: for memory that many threads read.
struct Readers {
  struct Read {
    uint32_t epoch = 0;  // 0: none
    Site site = 0;
    uint16_t mask = 0;
  };
  explicit Readers(size_t threads) : of(threads) {}

  int live = 0;  // threads that have one
  std::vector<Read> of;
};

// What is known of 16 bytes of memory.
struct Cell {
  uint16_t written = 0;         // bytes that hold a value
  uint16_t pending = 0;         // bytes that a cp.async is to write
  uint16_t pending_thread = 0;  // whose
  uint16_t count = 0;
  uint16_t now_read = 0;  // bytes that the operation in progress has read, in global memory
  uint16_t now_written = 0;
  uint16_t now_atomic = 0;                   // by atomics, which may meet those of other operations
  std::unique_ptr<std::vector<Entry>> more;  // beyond the first ones
  std::unique_ptr<Readers> readers;          // shared memory only
  static constexpr int kFirst = 2;
  Entry first[kFirst];

  const Entry& At(int i) const {
    return i < kFirst ? first[i] : (*more)[static_cast<size_t>(i - kFirst)];
  }
  void Add(const Entry& entry);
  void Remove(int i);  // keeps the order of the others
  // Forgets accesses, not what the bytes hold.
  void Forget();
};
inline constexpr int kCellBytes = 16;

// Calls fn(offset, mask) for each cell of 16 bytes.
template <typename Fn>
void ForCells(uint64_t offset, size_t bytes, Fn fn) {
  while (bytes > 0) {
    const size_t first = offset % kCellBytes;
    const size_t count = std::min(kCellBytes - first, bytes);
    fn(offset, static_cast<uint16_t>(((1u << count) - 1) << first));
    offset += count;
    bytes -= count;
  }
}

// The accessing thread as the shadow sees it.
struct Toucher {
  const ThreadClock& clock;
  uint32_t block;
  int thread;

  bool Knows(const Entry& entry) const;
};

// How many accesses a cell remembers.
struct Memory {
  int limit;       // beyond these the oldest read goes
  size_t threads;  // of the block, if only its own can come here: reads of all are kept; else 0
};

// Notes an access, and forgets earlier ones that it makes superfluous. True, and *conflict, if an
// earlier access is not ordered before it.
bool Note(Cell& cell, const Toucher& toucher, Touch touch, uint16_t mask, Site site,
          const Memory& memory, Entry* conflict);

}  // namespace quern::simt
