#include "runtime/kv_cache/block_ledger.h"

#include <cassert>
#include <cstddef>

namespace quern {

BlockLedger::BlockLedger(int32_t num_blocks) : blocks_(static_cast<size_t>(num_blocks)) {
  assert(num_blocks >= 0);
  empty_.reserve(static_cast<size_t>(num_blocks));
  for (BlockId block = num_blocks - 1; block >= 0; --block) empty_.push_back(block);
}

BlockId BlockLedger::Take() {
  BlockId block = oldest_;
  if (!empty_.empty()) {
    block = empty_.back();
    empty_.pop_back();
  } else if (block != kNoBlock) {
    TakeFromIdle(block);
  } else {
    return kNoBlock;
  }
  At(block).owners = 1;
  return block;
}

void BlockLedger::AddOwner(BlockId block) {
  if (At(block).owners++ == 0) TakeFromIdle(block);
}

bool BlockLedger::RemoveOwner(BlockId block) {
  assert(InUse(block));
  return InUse(block) && --At(block).owners == 0;
}

void BlockLedger::MakeIdle(BlockId block, GoesOut when) {
  Block& it = At(block);
  it.older = when == GoesOut::kLast ? newest_ : kNoBlock;
  it.newer = when == GoesOut::kLast ? kNoBlock : oldest_;
  (it.older == kNoBlock ? oldest_ : At(it.older).newer) = block;
  (it.newer == kNoBlock ? newest_ : At(it.newer).older) = block;
  ++num_idle_;
}

void BlockLedger::MakeEmpty(BlockId block) { empty_.push_back(block); }

void BlockLedger::Discard(BlockId idle) {
  TakeFromIdle(idle);
  MakeEmpty(idle);
}

void BlockLedger::TakeFromIdle(BlockId block) {
  const Block& it = At(block);
  (it.older == kNoBlock ? oldest_ : At(it.older).newer) = it.newer;
  (it.newer == kNoBlock ? newest_ : At(it.newer).older) = it.older;
  --num_idle_;
}

int32_t BlockLedger::Owners(BlockId block) const {
  return block >= 0 && block < num_blocks() ? At(block).owners : 0;
}

Status BlockLedger::CheckIntegrity(const std::function<bool(BlockId)>& kept) const {
  std::vector<bool> free(blocks_.size(), false);
  const auto take = [&](BlockId block, bool idle) -> Status {
    if (InUse(block) || kept(block) != idle || free[static_cast<size_t>(block)]) {
      return MakeError(ErrorCode::kInternal, "KV block {} is {} but has {} owners", block,
                       idle ? "idle" : "empty", Owners(block));
    }
    free[static_cast<size_t>(block)] = true;
    return {};
  };
  for (const BlockId block : empty_) QUERN_TRY(take(block, false));
  int32_t idle = 0;
  for (BlockId block = oldest_; block != kNoBlock; block = At(block).newer, ++idle) {
    QUERN_TRY(take(block, true));
  }
  if (idle != num_idle_) {
    return MakeError(ErrorCode::kInternal, "{} KV blocks are idle, not {}", idle, num_idle_);
  }
  for (BlockId block = 0; block < num_blocks(); ++block) {
    if (InUse(block) || free[static_cast<size_t>(block)]) continue;
    return MakeError(ErrorCode::kInternal, "KV block {} has no owner and is not free", block);
  }
  return {};
}

}  // namespace quern
