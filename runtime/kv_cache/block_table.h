#pragma once

#include <cstdint>
#include <span>
#include <string_view>
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
// dies (asserted). The first num_published() of them are full, in the pool's prefix index, and may
// belong to other tables too: nobody writes to them. The rest is this table's alone.
//
// Where the pool has window blocks, window_blocks() is the same for the layers that see only their
// last tokens: as long as blocks(), but kNoBlock before first_window(). One of a published block is
// linked to it, and may belong to other tables too.
// Not thread-safe.
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
  // Into an empty table, the blocks that FindPrefix found.
  void TakePrefix(std::span<const BlockId> blocks, BlockPool& pool);
  // The first `computed` of `tokens` have K and V in the table: publishes its full blocks. Where
  // the pool has the same content already, that block takes the place of this table's own, so that
  // who owns a published block owns all before it.
  void Publish(std::span<const int32_t> tokens, int32_t computed, std::string_view salt,
               int32_t block_tokens, BlockPool& pool);
  // Gives the window blocks back that no token from `computed` on sees, nor any that follows the
  // last border of a block before it: where the next turn of a conversation goes on from, as only
  // whole blocks are found. `prompt`: tokens; what is seen from where it ends is kept longer by the
  // pool.
  void Slide(int32_t computed, int32_t prompt, int32_t block_tokens, BlockPool& pool);
  void Clear(BlockPool& pool);  // gives every block back

  std::span<const BlockId> blocks() const { return blocks_; }
  std::span<const BlockId> window_blocks() const { return window_blocks_; }
  int32_t size() const { return static_cast<int32_t>(blocks_.size()); }
  int32_t num_published() const { return num_published_; }
  int32_t first_window() const { return first_window_; }

 private:
  std::vector<BlockId> blocks_;
  std::vector<BlockId> window_blocks_;  // empty where the pool has none
  int32_t num_published_ = 0;
  int32_t first_window_ = 0;
};

// The longest run of published blocks that holds the beginning of `tokens`, at most `most` tokens,
// and whose end still has the window blocks that are seen from there.
void FindPrefix(std::span<const int32_t> tokens, int32_t most, std::string_view salt,
                int32_t block_tokens, const BlockPool& pool, std::vector<BlockId>& found);

// Whether `tables` are the only owners of the pool's used blocks, full ones and those of windows:
// each block has as many owners as tables hold it, one that is in several is published (linked to a
// published one), and the pool agrees with itself. kInternal names the first block that is wrong.
// O(blocks): for debug builds and tests.
Status CheckBlocks(const BlockPool& pool, std::span<const BlockTable* const> tables);

}  // namespace quern
