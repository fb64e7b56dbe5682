#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/kv_cache/block_pool.h"

namespace quern {

// Blocks that `tokens` tokens take.
constexpr int32_t BlocksFor(int32_t tokens, int32_t block_tokens) {
  return tokens / block_tokens + (tokens % block_tokens != 0 ? 1 : 0);
}

// The blocks of one sequence in order: token i lives in blocks()[i / block_tokens], slot i %
// block_tokens. Blocks come from one pool and must be given back to it with Clear before the table
// dies (asserted). Not thread-safe.
class BlockTable {
 public:
  BlockTable() = default;
  ~BlockTable();
  BlockTable(BlockTable&& other) noexcept = default;
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  // Makes the table at least `num_blocks` long. All or nothing: false, and nothing changed, when
  // the pool has too few.
  bool Grow(int32_t num_blocks, BlockPool& pool);
  void Clear(BlockPool& pool);  // gives every block back

  std::span<const BlockId> blocks() const { return blocks_; }
  int32_t size() const { return static_cast<int32_t>(blocks_.size()); }

 private:
  std::vector<BlockId> blocks_;
};

// Whether `tables` are the only owners of the pool's used blocks: every block of a table is in use
// and in no other place, and no block is in use outside of them. kInternal names the first block
// that is wrong. O(blocks): for debug builds and tests.
Status CheckBlocks(const BlockPool& pool, std::span<const BlockTable* const> tables);

}  // namespace quern
