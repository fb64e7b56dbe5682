#include "runtime/kv_cache/block_table.h"

#include <cassert>
#include <cstddef>

namespace quern {
namespace {

// What block number `i` of a sequence holds; `blocks` are those before it.
PrefixIndex::Key KeyOf(std::span<const int32_t> tokens, std::span<const BlockId> blocks, size_t i,
                       std::string_view salt, int32_t block_tokens) {
  const auto width = static_cast<size_t>(block_tokens);
  return {.parent = i == 0 ? kNoBlock : blocks[i - 1],
          .salt = salt,
          .tokens = tokens.subspan(i * width, width)};
}

// How many of the blocks of a prefix can be used: the most whose end has all the window blocks that
// are seen from it. Where one is missing, no end that sees it will do.
size_t UsablePrefix(std::span<const BlockId> blocks, const WindowBlocks& window) {
  auto usable = static_cast<int32_t>(blocks.size());
  if (!window.present()) return blocks.size();
  for (int32_t i = usable - 1; i >= window.FirstSeen(usable); --i) {
    if (window.Of(blocks[static_cast<size_t>(i)]) == kNoBlock) usable = i;
  }
  return static_cast<size_t>(usable);
}

}  // namespace

BlockTable::~BlockTable() { assert(blocks_.empty() && "the blocks of a sequence were leaked"); }

bool BlockTable::Grow(int32_t num_blocks, BlockPool& pool) {
  if (num_blocks - size() > pool.room_to_grow()) return false;
  while (size() < num_blocks) {
    blocks_.push_back(*pool.Allocate());
    if (pool.window().present()) window_blocks_.push_back(pool.window().Allocate());
  }
  return true;
}

void BlockTable::TakePrefix(std::span<const BlockId> blocks, BlockPool& pool) {
  assert(blocks_.empty());
  for (const BlockId block : blocks) pool.Share(block);
  blocks_.assign(blocks.begin(), blocks.end());
  num_published_ = size();
  WindowBlocks& window = pool.window();
  if (!window.present()) return;
  first_window_ = window.FirstSeen(size());
  window_blocks_.assign(blocks.size(), kNoBlock);
  for (auto i = static_cast<size_t>(first_window_); i < blocks.size(); ++i) {
    window_blocks_[i] = window.Of(blocks[i]);
    window.Share(window_blocks_[i]);
  }
}

void BlockTable::Publish(std::span<const int32_t> tokens, int32_t computed, std::string_view salt,
                         int32_t block_tokens, BlockPool& pool) {
  assert(static_cast<size_t>(computed) <= tokens.size() && computed <= size() * block_tokens);
  WindowBlocks& window = pool.window();
  for (; (num_published_ + 1) * block_tokens <= computed; ++num_published_) {
    const auto i = static_cast<size_t>(num_published_);
    const PrefixIndex::Key key = KeyOf(tokens, blocks_, i, salt, block_tokens);
    const BlockId same = pool.Find(key);
    if (same == kNoBlock) {
      pool.Publish(blocks_[i], key);
    } else {
      pool.Share(same);
      pool.Free(blocks_[i]);
      blocks_[i] = same;
    }
    if (!window.present()) continue;
    assert(num_published_ >= first_window_ && "a window block went before it was published");
    const BlockId same_window = window.Of(blocks_[i]);
    if (same_window == kNoBlock) {
      window.Link(window_blocks_[i], blocks_[i]);
    } else {
      window.Share(same_window);
      window.Free(window_blocks_[i], false);
      window_blocks_[i] = same_window;
    }
  }
}

void BlockTable::Slide(int32_t computed, int32_t prompt, int32_t block_tokens, BlockPool& pool) {
  WindowBlocks& window = pool.window();
  if (!window.present()) return;
  // Who comes with the same prompt needs its last token again and ends a block earlier, where that
  // is the last of a block.
  const int32_t end_seen = window.FirstSeen((prompt - 1) / block_tokens);
  const int32_t end = prompt / block_tokens;
  const int32_t first = window.FirstSeen(computed / block_tokens);
  for (; first_window_ < first; ++first_window_) {
    BlockId& block = window_blocks_[static_cast<size_t>(first_window_)];
    window.Free(block, first_window_ >= end_seen && first_window_ < end);
    block = kNoBlock;
  }
}

void BlockTable::Clear(BlockPool& pool) {
  // Last one first: the pool hands them out again in the order of the tokens they held, and of what
  // stays idle it evicts the end of a prompt before its beginning.
  for (size_t i = blocks_.size(); i > 0; --i) {
    pool.Free(blocks_[i - 1]);
    if (i <= window_blocks_.size() && i > static_cast<size_t>(first_window_)) {
      pool.window().Free(window_blocks_[i - 1], true);
    }
  }
  blocks_.clear();
  window_blocks_.clear();
  num_published_ = first_window_ = 0;
}

void FindPrefix(std::span<const int32_t> tokens, int32_t most, std::string_view salt,
                int32_t block_tokens, const BlockPool& pool, std::vector<BlockId>& found) {
  assert(static_cast<size_t>(most) <= tokens.size());
  found.clear();
  while ((static_cast<int32_t>(found.size()) + 1) * block_tokens <= most) {
    const BlockId block = pool.Find(KeyOf(tokens, found, found.size(), salt, block_tokens));
    if (block == kNoBlock) break;
    found.push_back(block);
  }
  found.resize(UsablePrefix(found, pool.window()));
}

namespace {

// How often tables hold the blocks of one kind, against the owners that its pool counts.
class Held {
 public:
  Held(const char* kind, int32_t num_blocks)
      : kind_(kind), owners_(static_cast<size_t>(num_blocks), 0) {}

  // A table holds the block, alone unless it is `shareable`.
  Status Add(BlockId block, bool in_use, bool shareable) {
    if (!in_use) {
      return MakeError(ErrorCode::kInternal, "{} block {} is in a block table but not in use",
                       kind_, block);
    }
    if (owners_[static_cast<size_t>(block)]++ == 0) {
      ++held_;
    } else if (!shareable) {
      return MakeError(ErrorCode::kInternal, "{} block {} has two owners", kind_, block);
    }
    return {};
  }

  template <typename Pool>
  Status Compare(const Pool& pool) const {
    for (BlockId block = 0; block < pool.num_blocks(); ++block) {
      const int32_t counted = owners_[static_cast<size_t>(block)];
      if (counted == 0 || pool.Owners(block) == counted) continue;
      return MakeError(ErrorCode::kInternal, "{} block {} is in {} block tables but has {} owners",
                       kind_, block, counted, pool.Owners(block));
    }
    if (held_ != pool.num_used()) {
      return MakeError(ErrorCode::kInternal, "{} {} blocks are in use but {} are in block tables",
                       pool.num_used(), kind_, held_);
    }
    return {};
  }

 private:
  const char* kind_;
  std::vector<int32_t> owners_;
  int32_t held_ = 0;  // blocks in at least one table
};

// The window block of block `i` of a table.
Status CheckWindowBlock(const BlockTable& table, int32_t i, const WindowBlocks& window,
                        Held& held) {
  const BlockId block = table.window_blocks()[static_cast<size_t>(i)];
  if (i < table.first_window()) {
    if (block == kNoBlock) return {};
    return MakeError(ErrorCode::kInternal, "window block {} is kept behind its window", block);
  }
  const bool published = i < table.num_published();
  QUERN_TRY(held.Add(block, window.InUse(block), published));
  const bool right = published ? window.Of(table.blocks()[static_cast<size_t>(i)]) == block
                               : !window.Linked(block);
  if (right) return {};
  return MakeError(ErrorCode::kInternal, "window block {} is{} linked to its table's KV block {}",
                   block, published ? " not" : "", table.blocks()[static_cast<size_t>(i)]);
}

}  // namespace

Status CheckBlocks(const BlockPool& pool, std::span<const BlockTable* const> tables) {
  Held full("KV", pool.num_blocks());
  Held windows("window", pool.window().num_blocks());
  for (const BlockTable* table : tables) {
    const auto wanted = pool.window().present() ? table->blocks().size() : 0;
    if (table->window_blocks().size() != wanted) {
      return MakeError(ErrorCode::kInternal, "a table of {} KV blocks has {} window blocks",
                       table->size(), table->window_blocks().size());
    }
    for (int32_t i = 0; i < table->size(); ++i) {
      const BlockId block = table->blocks()[static_cast<size_t>(i)];
      const bool published = i < table->num_published();
      if (pool.InUse(block) && pool.Published(block) != published) {
        return MakeError(ErrorCode::kInternal, "KV block {} is{} published against its table",
                         block, published ? " not" : "");
      }
      QUERN_TRY(full.Add(block, pool.InUse(block), published));
      if (wanted > 0) QUERN_TRY(CheckWindowBlock(*table, i, pool.window(), windows));
    }
  }
  QUERN_TRY(full.Compare(pool));
  QUERN_TRY(windows.Compare(pool.window()));
  return pool.CheckIntegrity();
}

}  // namespace quern
