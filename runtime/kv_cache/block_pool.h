#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace quern {

using BlockId = int32_t;

// Hands out the blocks of the paged KV cache by number (PagedAttention, Kwon et al. 2023).
// Accounting only: the bytes belong to the backend, which sees the same numbers in a ForwardBatch.
// Every call is O(1). Not thread-safe.
class BlockPool {
 public:
  explicit BlockPool(int32_t num_blocks);  // at least 0

  std::optional<BlockId> Allocate();  // nullopt when no block is free
  // Gives a block back. Freeing one that is not in use is a bug of the caller's and asserts; a
  // release build ignores it rather than hand the same block out twice.
  void Free(BlockId block);

  bool InUse(BlockId block) const;
  int32_t num_blocks() const { return static_cast<int32_t>(in_use_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  int32_t num_used() const { return num_blocks() - num_free(); }

 private:
  // A stack: the block freed last is the one whose bytes are likeliest to be in the CPU's caches
  // still.
  std::vector<BlockId> free_;
  std::vector<bool> in_use_;
};

}  // namespace quern
