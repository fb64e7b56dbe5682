#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/kv_cache/block_ledger.h"

namespace quern {

// Where a model has layers that see only the last W tokens: the second pool, of blocks with the
// same number of tokens, for those layers alone.
struct WindowLayout {
  // Blocks before the border of a block that a token behind the border sees: BlocksFor(W - 1).
  int32_t reach = 0;
  int32_t num_blocks = 0;  // 0: the model has no such layers, or they keep all tokens
};

// The most blocks that sequences own of the second pool while at most `max_sequences` run and a
// step takes at most `max_batch_tokens` new tokens: with so many blocks an allocation never fails.
//
// A sequence with c tokens computed keeps what is seen from the last border before them on
// (BlockTable::Slide), and has room for its n tokens of the step at hand: `reach` blocks before the
// border, and behind it ceil((c mod B + n) / B) <= (n + 2B - 2) / B of them, B tokens each. Over
// all that is max_sequences * reach + (max_batch_tokens + max_sequences * (2B - 2)) / B. Between
// steps n is 0, or 1 where a mask was late, whose sequence runs that token again in the next step.
// Blocks with several owners count once; idle ones are free.
constexpr int64_t WindowBlocksInUse(int32_t reach, int32_t block_tokens, int32_t max_sequences,
                                    int32_t max_batch_tokens) {
  const int64_t sequences = max_sequences;
  return sequences * reach +
         (max_batch_tokens + sequences * (2 * int64_t{block_tokens} - 2)) / block_tokens;
}

// The blocks of the second pool, by number. A sequence has one for each block that it has of the
// pool of the layers that see everything (here: a full block), but for those whose tokens no layer
// with a window will see again.
//
// What a window block holds is known by the full block of the same tokens, which it is linked to
// when that is published, at most one to each. So a prefix is found in the full blocks' index
// alone, tenants' salts included, and here it is only looked up which of its blocks are left. The
// link ends when either block is evicted: a window block without it is empty.
//
// Of free blocks that are linked those go out first that lie behind the windows of who computed
// them, in the middle of a prompt or of an answer: only another prompt that parts from theirs just
// there could use them. Those at the end of a prompt and of a sequence, where the next turn and
// prompts that begin alike go on, and those that a second sequence has found before, go out last,
// least recently used first. Every call is O(1). Not thread-safe.
class WindowBlocks {
 public:
  WindowBlocks(const WindowLayout& layout, int32_t num_full_blocks);

  bool present() const { return ledger_.num_blocks() > 0; }
  // The first block, of those from 0 on, that is seen from behind the border of `blocks` blocks.
  int32_t FirstSeen(int32_t blocks) const { return std::max(0, blocks - reach_); }

  BlockId Allocate();         // one owner; kNoBlock when none is free
  void Share(BlockId block);  // one more owner for a linked one
  // Takes an owner away. `at_end`: of a prompt, or of what its sequence has computed.
  void Free(BlockId block, bool at_end);

  // The block that holds the same tokens as this full one; kNoBlock: none is left.
  BlockId Of(BlockId full) const { return of_full_[static_cast<size_t>(full)]; }
  // `block` is owned and not linked, `full` is published and has none.
  void Link(BlockId block, BlockId full);
  void Unlink(BlockId full);  // the full block is evicted, so that nobody owns the one linked to it
  bool Linked(BlockId block) const { return full_of_[static_cast<size_t>(block)] != kNoBlock; }

  int32_t Owners(BlockId block) const { return ledger_.Owners(block); }
  bool InUse(BlockId block) const { return ledger_.InUse(block); }
  int32_t num_blocks() const { return ledger_.num_blocks(); }
  int32_t num_free() const { return ledger_.num_free(); }
  int32_t num_used() const { return ledger_.num_used(); }

  // kInternal when lists, counts and links contradict each other. O(blocks).
  Status CheckIntegrity() const;

 private:
  int32_t reach_;
  BlockLedger ledger_;
  std::vector<BlockId> of_full_;  // by full block
  std::vector<BlockId> full_of_;  // by window block
  std::vector<bool> found_;       // by window block: shared since it was filled
};

}  // namespace quern
