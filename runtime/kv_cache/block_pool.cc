#include "runtime/kv_cache/block_pool.h"

#include <cassert>
#include <cstddef>

namespace quern {

BlockPool::BlockPool(int32_t num_blocks, uint64_t hash_seed, PrefixIndex::Hash hash)
    : blocks_(static_cast<size_t>(num_blocks)), index_(num_blocks, hash_seed, hash) {
  assert(num_blocks >= 0);
  empty_.reserve(static_cast<size_t>(num_blocks));
  for (BlockId block = num_blocks - 1; block >= 0; --block) empty_.push_back(block);
}

std::optional<BlockId> BlockPool::Allocate() {
  BlockId block = oldest_;
  if (!empty_.empty()) {
    block = empty_.back();
    empty_.pop_back();
  } else if (block != kNoBlock) {
    TakeFromIdle(block);
    index_.Erase(block);
  } else {
    return std::nullopt;
  }
  At(block).owners = 1;
  return block;
}

void BlockPool::Share(BlockId block) {
  assert(Published(block));
  if (At(block).owners++ == 0) TakeFromIdle(block);
}

void BlockPool::Free(BlockId block) {
  assert(InUse(block));
  if (!InUse(block)) return;
  if (--At(block).owners > 0) return;
  if (Published(block)) {
    MakeIdle(block);
  } else {
    empty_.push_back(block);
  }
}

void BlockPool::Publish(BlockId block, const PrefixIndex::Key& key) {
  assert(Owners(block) == 1);
  index_.Insert(block, key);
}

int32_t BlockPool::Owners(BlockId block) const {
  return block >= 0 && block < num_blocks() ? At(block).owners : 0;
}

void BlockPool::MakeIdle(BlockId block) {
  At(block).older = newest_;
  At(block).newer = kNoBlock;
  (newest_ == kNoBlock ? oldest_ : At(newest_).newer) = block;
  newest_ = block;
  ++num_idle_;
}

void BlockPool::TakeFromIdle(BlockId block) {
  const Block& it = At(block);
  (it.older == kNoBlock ? oldest_ : At(it.older).newer) = it.newer;
  (it.newer == kNoBlock ? newest_ : At(it.newer).older) = it.older;
  --num_idle_;
}

Status BlockPool::CheckIntegrity() const {
  std::vector<bool> free(blocks_.size(), false);
  const auto take = [&](BlockId block, bool idle) -> Status {
    if (InUse(block) || Published(block) != idle || free[static_cast<size_t>(block)]) {
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
  int32_t published = 0;
  for (BlockId block = 0; block < num_blocks(); ++block) {
    published += Published(block) ? 1 : 0;
    if (!InUse(block) && !free[static_cast<size_t>(block)]) {
      return MakeError(ErrorCode::kInternal, "KV block {} has no owner and is not free", block);
    }
  }
  if (published != index_.size()) {
    return MakeError(ErrorCode::kInternal, "{} KV blocks are published, of which {} are found",
                     published, index_.size());
  }
  return index_.CheckIntegrity();
}

}  // namespace quern
