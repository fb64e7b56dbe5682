#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/kv_cache/prefix_index.h"

namespace quern {

// Hands out the blocks of the paged KV cache by number (PagedAttention, Kwon et al. 2023), counts
// their owners, and keeps what full ones hold for who comes with the same tokens.
// Accounting only: the bytes belong to the backend, which sees the same numbers in a ForwardBatch.
// Every call is O(1), but for a lookup's O(tokens of a block). Not thread-safe.
//
// A block is owned (by one or more), idle (no owner, but in the prefix index) or empty. Idle and
// empty ones are free. Empty ones are handed out first, then idle ones, least recently used first.
// Owners free the last block of a sequence first (BlockTable::Clear), and who owns a block owns
// those before it; so an idle block is always evicted before the ones that it stands on.
class BlockPool {
 public:
  explicit BlockPool(int32_t num_blocks,      // at least 0
                     uint64_t hash_seed = 0,  // PrefixIndex
                     PrefixIndex::Hash hash = PrefixIndex::DefaultHash);

  std::optional<BlockId> Allocate();  // one owner; nullopt when no block is free
  // One more owner for a block that Find named.
  void Share(BlockId block);
  // Takes an owner away. Freeing a block that has none is a bug of the caller's and asserts; a
  // release build ignores it rather than hand the same block out twice.
  void Free(BlockId block);

  BlockId Find(const PrefixIndex::Key& key) const { return index_.Find(key); }
  // From now on Find gives `block`, which is full, owned, and never written again.
  void Publish(BlockId block, const PrefixIndex::Key& key);
  bool Published(BlockId block) const { return index_.Contains(block); }

  int32_t Owners(BlockId block) const;
  bool InUse(BlockId block) const { return Owners(block) > 0; }
  int32_t num_blocks() const { return static_cast<int32_t>(blocks_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(empty_.size()) + num_idle_; }
  int32_t num_idle() const { return num_idle_; }
  int32_t num_used() const { return num_blocks() - num_free(); }

  // kInternal when the lists, the counts and the index contradict each other. O(blocks).
  Status CheckIntegrity() const;

 private:
  struct Block {
    int32_t owners = 0;
    // Neighbours in the list of idle blocks.
    BlockId older = kNoBlock, newer = kNoBlock;
  };
  Block& At(BlockId block) { return blocks_[static_cast<size_t>(block)]; }
  const Block& At(BlockId block) const { return blocks_[static_cast<size_t>(block)]; }
  void MakeIdle(BlockId block);
  void TakeFromIdle(BlockId block);

  // A stack: the block freed last is the one whose bytes are likeliest to be in the CPU's caches
  // still.
  std::vector<BlockId> empty_;
  std::vector<Block> blocks_;
  BlockId oldest_ = kNoBlock, newest_ = kNoBlock;  // ends of the list of idle blocks
  int32_t num_idle_ = 0;
  PrefixIndex index_;
};

}  // namespace quern
