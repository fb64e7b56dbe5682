#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/kv_cache/block_ledger.h"

namespace quern {

// Which full blocks hold the K and V of which tokens, as a forest: a block stands under the block
// of the tokens before its own, and a sequence's first one under a salt. (vLLM's automatic prefix
// caching.)
//
// A hit is exact: the hash only says where to look; then the tokens, the parent and at a root the
// salt are compared. Two prompts whose hashes collide never see each other's blocks. A parent is
// known by a number that is given once and never again, so that a block which was evicted and
// filled anew is not taken for what it was. Not thread-safe.
class PrefixIndex {
 public:
  // What a block holds. `parent`: the block before it, kNoBlock for the first of a sequence, whose
  // `salt` counts then and only then.
  struct Key {
    BlockId parent = kNoBlock;
    std::string_view salt;
    std::span<const int32_t> tokens;
  };
  // Of a key and its parent's number. Tests put a bad one in.
  using Hash = uint64_t (*)(uint64_t seed, uint64_t parent, const Key& key);
  static uint64_t DefaultHash(uint64_t seed, uint64_t parent, const Key& key);

  // `seed`: a secret where prompts come from strangers, who could else choose them so that their
  // hashes collide, and make lookups slow.
  explicit PrefixIndex(int32_t num_blocks, uint64_t seed = 0, Hash hash = DefaultHash);

  BlockId Find(const Key& key) const;  // kNoBlock: none, or the parent is not in the index
  // `block` is not in the index, the key is not, and its parent is (asserted).
  void Insert(BlockId block, const Key& key);
  void Erase(BlockId block);  // no block may have it as parent after that (CheckIntegrity)
  bool Contains(BlockId block) const { return entries_[static_cast<size_t>(block)].number != 0; }
  int32_t size() const { return static_cast<int32_t>(by_hash_.size()); }

  // kInternal when a block's parent is gone or the table of hashes disagrees with the blocks.
  Status CheckIntegrity() const;

 private:
  struct Entry {
    uint64_t number = 0;  // 0: not in the index
    uint64_t parent = 0;  // number of the block before; 0: none
    uint64_t hash = 0;
    std::string salt;  // of a root
    std::vector<int32_t> tokens;
  };

  bool Matches(const Entry& entry, uint64_t parent, const Key& key) const;
  // The parent's number; false if it has none.
  bool ParentOf(const Key& key, uint64_t& parent) const;

  const uint64_t seed_;
  const Hash hash_;
  std::vector<Entry> entries_;  // by block
  std::unordered_multimap<uint64_t, BlockId> by_hash_;
  uint64_t next_number_ = 1;
};

}  // namespace quern
