#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/kv_cache/block_history.h"
#include "runtime/kv_cache/block_ledger.h"
#include "runtime/kv_cache/prefix_index.h"
#include "runtime/kv_cache/window_blocks.h"

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
                     PrefixIndex::Hash hash = PrefixIndex::DefaultHash,
                     const WindowLayout& window = {})
      : ledger_(num_blocks),
        index_(num_blocks, hash_seed, hash),
        window_(window, num_blocks),
        times_(static_cast<size_t>(num_blocks)) {}

  std::optional<BlockId> Allocate();  // one owner; nullopt when no block is free
  // One more owner for a block that Find named.
  void Share(BlockId block);
  // Takes an owner away. Freeing a block that has none is a bug of the caller's and asserts; a
  // release build ignores it.
  void Free(BlockId block);

  BlockId Find(const PrefixIndex::Key& key) const { return index_.Find(key); }
  // From now on Find gives `block`, which is full, owned, and never written again.
  void Publish(BlockId block, const PrefixIndex::Key& key);
  bool Published(BlockId block) const { return index_.Contains(block); }

  // The time from now on, in seconds since any one moment, never going down: by it the history is
  // kept. Absent, as it is at first: it is not kept, and starts anew with the next time.
  void SetTime(std::optional<double> now) { now_ = now; }
  // Since it was last taken: to be taken now and then, as it grows.
  BlockHistory TakeHistory() { return std::exchange(history_, {}); }

  // Of the layers that see only their last tokens; not present() where there are none.
  WindowBlocks& window() { return window_; }
  const WindowBlocks& window() const { return window_; }
  // Blocks that a table can grow by: it takes one of each kind. Only the full ones ever limit it
  // where there are WindowBlocksInUse of the others.
  int32_t room_to_grow() const {
    return window_.present() ? std::min(num_free(), window_.num_free()) : num_free();
  }

  int32_t Owners(BlockId block) const { return ledger_.Owners(block); }
  bool InUse(BlockId block) const { return ledger_.InUse(block); }
  int32_t num_blocks() const { return ledger_.num_blocks(); }
  int32_t num_free() const { return ledger_.num_free(); }
  int32_t num_idle() const { return ledger_.num_idle(); }
  int32_t num_used() const { return ledger_.num_used(); }

  // kInternal when the lists, the counts and the index contradict each other. O(blocks).
  Status CheckIntegrity() const;

 private:
  struct Times {
    double handed_out = 0;
    double left = 0;  // by the last owner
  };
  Times& TimesOf(BlockId block) { return times_[static_cast<size_t>(block)]; }

  BlockLedger ledger_;
  PrefixIndex index_;
  WindowBlocks window_;
  std::optional<double> now_;
  std::vector<Times> times_;
  BlockHistory history_;
};

}  // namespace quern
