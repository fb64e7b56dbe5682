#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/simt/shadow.h"

namespace quern::simt {

struct Counts;
struct Range;

enum class Space : uint8_t { kGlobal, kShared };

// The accesses of a warp's lanes since they last came together. A kernel's lanes run one after the
// other here; what they did at the same place for the same time counts as one instruction.
class TrafficLog {
 public:
  void Add(int lane, Site site, Space space, bool write, uint64_t address, uint32_t bytes);
  // Adds what has been logged to the counts, and forgets it.
  void Flush(Counts& counts, std::span<const Range> watched);

 private:
  struct Item {
    uint64_t address;
    Site site;
    uint32_t bytes;
    uint32_t turn;  // how often the lane had been at the site before
    uint8_t lane;
    Space space;
    bool write;
  };
  // Of an instruction on shared memory. Lanes that together ask for 128 bytes are served at once,
  // if no bank has two of their words; twice as many where lanes load the same in pairs, n and n ^
  // 1 or n and n ^ 2. (NVIDIA's developer forum, "Unexpected shared memory bank conflict", says so
  // of compute capability 7.0 to 7.5; of later ones it is taken to hold.)
  static int64_t Wavefronts(std::span<const Item> lanes);
  static bool InPairs(std::span<const Item> lanes, int bit);

  std::vector<Item> items_;
};

}  // namespace quern::simt
