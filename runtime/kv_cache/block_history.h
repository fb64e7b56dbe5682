#pragma once

#include <vector>

namespace quern {

// What became of the blocks that a pool keeps for who comes with the same tokens. In seconds.
struct BlockHistory {
  // A block whose tokens were given up for others: since it was handed out for them, and since its
  // last owner left.
  struct Eviction {
    double lifetime = 0;
    double idle = 0;
  };
  std::vector<Eviction> evictions;
  std::vector<double>
      reuse_gaps;  // of each block without owners that was found: since the last left
};

}  // namespace quern
