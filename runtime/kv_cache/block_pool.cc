#include "runtime/kv_cache/block_pool.h"

#include <cassert>
#include <cstddef>

namespace quern {

BlockPool::BlockPool(int32_t num_blocks) : in_use_(static_cast<size_t>(num_blocks), false) {
  assert(num_blocks >= 0);
  free_.reserve(static_cast<size_t>(num_blocks));
  for (BlockId block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

std::optional<BlockId> BlockPool::Allocate() {
  if (free_.empty()) return std::nullopt;
  const BlockId block = free_.back();
  free_.pop_back();
  in_use_[static_cast<size_t>(block)] = true;
  return block;
}

void BlockPool::Free(BlockId block) {
  assert(InUse(block));
  if (!InUse(block)) return;
  in_use_[static_cast<size_t>(block)] = false;
  free_.push_back(block);
}

bool BlockPool::InUse(BlockId block) const {
  return block >= 0 && block < num_blocks() && in_use_[static_cast<size_t>(block)];
}

}  // namespace quern
