#include "runtime/kv_cache/block_pool.h"

#include <cassert>

namespace quern {

std::optional<BlockId> BlockPool::Allocate() {
  const BlockId block = ledger_.Take();
  if (block == kNoBlock) return std::nullopt;
  if (Published(block)) {
    index_.Erase(block);
    window_.Unlink(block);
    if (now_) {
      const Times& times = TimesOf(block);
      history_.evictions.push_back({*now_ - times.handed_out, *now_ - times.left});
    }
  }
  if (now_) TimesOf(block).handed_out = *now_;
  return block;
}

void BlockPool::Share(BlockId block) {
  assert(Published(block));
  if (now_ && !InUse(block)) history_.reuse_gaps.push_back(*now_ - TimesOf(block).left);
  ledger_.AddOwner(block);
}

void BlockPool::Free(BlockId block) {
  if (!ledger_.RemoveOwner(block)) return;
  if (Published(block)) {
    if (now_) TimesOf(block).left = *now_;
    ledger_.MakeIdle(block, BlockLedger::GoesOut::kLast);
  } else {
    ledger_.MakeEmpty(block);
  }
}

void BlockPool::Publish(BlockId block, const PrefixIndex::Key& key) {
  assert(Owners(block) == 1);
  index_.Insert(block, key);
}

Status BlockPool::CheckIntegrity() const {
  QUERN_TRY(ledger_.CheckIntegrity([this](BlockId block) { return Published(block); }));
  int32_t published = 0;
  for (BlockId block = 0; block < num_blocks(); ++block) {
    published += Published(block) ? 1 : 0;
    if (!window_.present() || Published(block) || window_.Of(block) == kNoBlock) continue;
    return MakeError(ErrorCode::kInternal, "KV block {} is linked to window block {} unpublished",
                     block, window_.Of(block));
  }
  if (published != index_.size()) {
    return MakeError(ErrorCode::kInternal, "{} KV blocks are published, of which {} are found",
                     published, index_.size());
  }
  QUERN_TRY(index_.CheckIntegrity());
  return window_.CheckIntegrity();
}

}  // namespace quern
