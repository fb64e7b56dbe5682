#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/base/result.h"

namespace quern {

using BlockId = int32_t;
constexpr BlockId kNoBlock = -1;

// Who owns the blocks of a pool, how many each, and in which order those without an owner are
// handed out. A block is owned, idle (no owner, but what it holds is worth keeping for a while) or
// empty. Idle and empty ones are free; empty ones go first, then idle ones, oldest first.
// Every call is O(1). Not thread-safe.
class BlockLedger {
 public:
  explicit BlockLedger(int32_t num_blocks);  // at least 0; all empty

  BlockId Take();                // one owner; kNoBlock when no block is free
  void AddOwner(BlockId block);  // to an owned or an idle one
  // True when it was the last owner: the caller says at once what becomes of the block, with
  // MakeIdle or MakeEmpty. Of a block without owners it is a bug of the caller's and asserts; a
  // release build ignores it rather than hand the same block out twice.
  bool RemoveOwner(BlockId block);
  enum class GoesOut { kFirst, kLast };  // of the idle ones
  void MakeIdle(BlockId block, GoesOut when);
  void MakeEmpty(BlockId block);
  void Discard(BlockId idle);  // what an idle one holds: it is empty now

  int32_t Owners(BlockId block) const;
  bool InUse(BlockId block) const { return Owners(block) > 0; }
  int32_t num_blocks() const { return static_cast<int32_t>(blocks_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(empty_.size()) + num_idle_; }
  int32_t num_idle() const { return num_idle_; }
  int32_t num_used() const { return num_blocks() - num_free(); }

  // kInternal when lists and counts contradict each other, or when a free block is idle and not
  // `kept`, or the other way round. O(blocks).
  Status CheckIntegrity(const std::function<bool(BlockId)>& kept) const;

 private:
  struct Block {
    int32_t owners = 0;
    // Neighbours in the list of idle blocks.
    BlockId older = kNoBlock, newer = kNoBlock;
  };
  Block& At(BlockId block) { return blocks_[static_cast<size_t>(block)]; }
  const Block& At(BlockId block) const { return blocks_[static_cast<size_t>(block)]; }
  void TakeFromIdle(BlockId block);

  // A stack: the block freed last is the one whose bytes are likeliest to be in the CPU's caches
  // still.
  std::vector<BlockId> empty_;
  std::vector<Block> blocks_;
  BlockId oldest_ = kNoBlock, newest_ = kNoBlock;  // ends of the list of idle blocks
  int32_t num_idle_ = 0;
};

}  // namespace quern
