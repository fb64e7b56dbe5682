#include "runtime/kv_cache/block_table.h"

#include <cassert>
#include <cstddef>

namespace quern {

BlockTable::~BlockTable() { assert(blocks_.empty() && "the blocks of a sequence were leaked"); }

bool BlockTable::Grow(int32_t num_blocks, BlockPool& pool) {
  if (num_blocks - size() > pool.num_free()) return false;
  while (size() < num_blocks) blocks_.push_back(*pool.Allocate());
  return true;
}

void BlockTable::Clear(BlockPool& pool) {
  // Last one first, so that the pool hands them out again in the order of the tokens they held.
  for (size_t i = blocks_.size(); i > 0; --i) pool.Free(blocks_[i - 1]);
  blocks_.clear();
}

Status CheckBlocks(const BlockPool& pool, std::span<const BlockTable* const> tables) {
  std::vector<bool> owned(static_cast<size_t>(pool.num_blocks()), false);
  int32_t total = 0;
  for (const BlockTable* table : tables) {
    for (const BlockId block : table->blocks()) {
      if (!pool.InUse(block)) {
        return MakeError(ErrorCode::kInternal, "KV block {} is in a block table but not in use",
                         block);
      }
      if (owned[static_cast<size_t>(block)]) {
        return MakeError(ErrorCode::kInternal, "KV block {} has two owners", block);
      }
      owned[static_cast<size_t>(block)] = true;
      ++total;
    }
  }
  if (total != pool.num_used()) {
    return MakeError(ErrorCode::kInternal, "{} KV blocks are in use but {} are in block tables",
                     pool.num_used(), total);
  }
  return {};
}

}  // namespace quern
