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

}  // namespace

BlockTable::~BlockTable() { assert(blocks_.empty() && "the blocks of a sequence were leaked"); }

bool BlockTable::Grow(int32_t num_blocks, BlockPool& pool) {
  if (num_blocks - size() > pool.num_free()) return false;
  while (size() < num_blocks) blocks_.push_back(*pool.Allocate());
  return true;
}

void BlockTable::TakePrefix(std::span<const BlockId> blocks, BlockPool& pool) {
  assert(blocks_.empty());
  for (const BlockId block : blocks) pool.Share(block);
  blocks_.assign(blocks.begin(), blocks.end());
  num_published_ = size();
}

void BlockTable::Publish(std::span<const int32_t> tokens, int32_t computed, std::string_view salt,
                         int32_t block_tokens, BlockPool& pool) {
  assert(static_cast<size_t>(computed) <= tokens.size() && computed <= size() * block_tokens);
  for (; (num_published_ + 1) * block_tokens <= computed; ++num_published_) {
    const auto i = static_cast<size_t>(num_published_);
    const PrefixIndex::Key key = KeyOf(tokens, blocks_, i, salt, block_tokens);
    const BlockId same = pool.Find(key);
    if (same == kNoBlock) {
      pool.Publish(blocks_[i], key);
      continue;
    }
    pool.Share(same);
    pool.Free(blocks_[i]);
    blocks_[i] = same;
  }
}

void BlockTable::Clear(BlockPool& pool) {
  // Last one first: the pool hands them out again in the order of the tokens they held, and of what
  // stays idle it evicts the end of a prompt before its beginning.
  for (size_t i = blocks_.size(); i > 0; --i) pool.Free(blocks_[i - 1]);
  blocks_.clear();
  num_published_ = 0;
}

void FindPrefix(std::span<const int32_t> tokens, int32_t most, std::string_view salt,
                int32_t block_tokens, const BlockPool& pool, std::vector<BlockId>& found) {
  assert(static_cast<size_t>(most) <= tokens.size());
  found.clear();
  while ((static_cast<int32_t>(found.size()) + 1) * block_tokens <= most) {
    const BlockId block = pool.Find(KeyOf(tokens, found, found.size(), salt, block_tokens));
    if (block == kNoBlock) return;
    found.push_back(block);
  }
}

Status CheckBlocks(const BlockPool& pool, std::span<const BlockTable* const> tables) {
  std::vector<int32_t> owners(static_cast<size_t>(pool.num_blocks()), 0);
  int32_t held = 0;  // blocks in at least one table
  for (const BlockTable* table : tables) {
    for (int32_t i = 0; i < table->size(); ++i) {
      const BlockId block = table->blocks()[static_cast<size_t>(i)];
      if (!pool.InUse(block)) {
        return MakeError(ErrorCode::kInternal, "KV block {} is in a block table but not in use",
                         block);
      }
      const bool published = i < table->num_published();
      if (pool.Published(block) != published) {
        return MakeError(ErrorCode::kInternal, "KV block {} is{} published against its table",
                         block, published ? " not" : "");
      }
      if (owners[static_cast<size_t>(block)]++ == 0) {
        ++held;
      } else if (!published) {
        return MakeError(ErrorCode::kInternal, "KV block {} has two owners", block);
      }
    }
  }
  for (BlockId block = 0; block < pool.num_blocks(); ++block) {
    const int32_t counted = owners[static_cast<size_t>(block)];
    if (counted == 0 || pool.Owners(block) == counted) continue;
    return MakeError(ErrorCode::kInternal, "KV block {} is in {} block tables but has {} owners",
                     block, counted, pool.Owners(block));
  }
  if (held != pool.num_used()) {
    return MakeError(ErrorCode::kInternal, "{} KV blocks are in use but {} are in block tables",
                     pool.num_used(), held);
  }
  return pool.CheckIntegrity();
}

}  // namespace quern
