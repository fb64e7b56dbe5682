#include "runtime/kv_cache/window_blocks.h"

#include <cassert>
#include <cstddef>
#include <utility>

namespace quern {

WindowBlocks::WindowBlocks(const WindowLayout& layout, int32_t num_full_blocks)
    : reach_(layout.reach),
      ledger_(layout.num_blocks),
      of_full_(layout.num_blocks > 0 ? static_cast<size_t>(num_full_blocks) : 0, kNoBlock),
      full_of_(static_cast<size_t>(layout.num_blocks), kNoBlock),
      found_(static_cast<size_t>(layout.num_blocks), false) {}

BlockId WindowBlocks::Allocate() {
  const BlockId block = ledger_.Take();
  if (block == kNoBlock) return kNoBlock;
  BlockId& full = full_of_[static_cast<size_t>(block)];
  if (full != kNoBlock) of_full_[static_cast<size_t>(full)] = kNoBlock;
  full = kNoBlock;
  found_[static_cast<size_t>(block)] = false;
  return block;
}

void WindowBlocks::Share(BlockId block) {
  assert(Linked(block));
  ledger_.AddOwner(block);
  found_[static_cast<size_t>(block)] = true;
}

void WindowBlocks::Free(BlockId block, bool at_end) {
  if (!ledger_.RemoveOwner(block)) return;
  if (!Linked(block)) {
    ledger_.MakeEmpty(block);
    return;
  }
  const bool last = at_end || found_[static_cast<size_t>(block)];
  ledger_.MakeIdle(block, last ? BlockLedger::GoesOut::kLast : BlockLedger::GoesOut::kFirst);
}

void WindowBlocks::Link(BlockId block, BlockId full) {
  assert(InUse(block) && !Linked(block) && Of(full) == kNoBlock);
  of_full_[static_cast<size_t>(full)] = block;
  full_of_[static_cast<size_t>(block)] = full;
}

void WindowBlocks::Unlink(BlockId full) {
  if (!present()) return;
  const BlockId block = std::exchange(of_full_[static_cast<size_t>(full)], kNoBlock);
  if (block == kNoBlock) return;
  full_of_[static_cast<size_t>(block)] = kNoBlock;
  assert(!InUse(block) && "who owns a window block owns the full one of the same tokens");
  if (!InUse(block)) ledger_.Discard(block);
}

Status WindowBlocks::CheckIntegrity() const {
  int32_t links = 0;
  for (BlockId block = 0; block < num_blocks(); ++block) {
    const BlockId full = full_of_[static_cast<size_t>(block)];
    if (full == kNoBlock) continue;
    ++links;
    if (Of(full) == block) continue;
    return MakeError(ErrorCode::kInternal, "window block {} is linked to KV block {}, that to {}",
                     block, full, Of(full));
  }
  const auto linked = static_cast<int32_t>(std::count_if(
      of_full_.begin(), of_full_.end(), [](BlockId block) { return block != kNoBlock; }));
  if (linked != links) {
    return MakeError(ErrorCode::kInternal, "{} KV blocks are linked to {} window blocks", linked,
                     links);
  }
  Status status = ledger_.CheckIntegrity([this](BlockId block) { return Linked(block); });
  if (!status) return std::move(status).error().Within("blocks of layers with windows");
  return {};
}

}  // namespace quern
