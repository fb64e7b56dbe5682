#include "runtime/kv_cache/prefix_index.h"

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <functional>
#include <unordered_set>

namespace quern {
namespace {

// The finalizer of SplitMix64 (Steele et al. 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t PrefixIndex::DefaultHash(uint64_t seed, uint64_t parent, const Key& key) {
  uint64_t hash = Mix(parent ^ seed);
  if (parent == 0) hash = Mix(hash ^ std::hash<std::string_view>()(key.salt));
  for (const int32_t token : key.tokens) hash = Mix(hash ^ static_cast<uint32_t>(token));
  return hash;
}

PrefixIndex::PrefixIndex(int32_t num_blocks, uint64_t seed, Hash hash)
    : seed_(seed), hash_(hash), entries_(static_cast<size_t>(num_blocks)) {}

bool PrefixIndex::ParentOf(const Key& key, uint64_t& parent) const {
  parent = key.parent == kNoBlock ? 0 : entries_[static_cast<size_t>(key.parent)].number;
  return key.parent == kNoBlock || parent != 0;
}

bool PrefixIndex::Matches(const Entry& entry, uint64_t parent, const Key& key) const {
  return entry.parent == parent && (parent != 0 || entry.salt == key.salt) &&
         std::equal(entry.tokens.begin(), entry.tokens.end(), key.tokens.begin(), key.tokens.end());
}

BlockId PrefixIndex::Find(const Key& key) const {
  uint64_t parent = 0;
  if (!ParentOf(key, parent)) return kNoBlock;
  const auto [begin, end] = by_hash_.equal_range(hash_(seed_, parent, key));
  for (auto it = begin; it != end; ++it) {
    if (Matches(entries_[static_cast<size_t>(it->second)], parent, key)) return it->second;
  }
  return kNoBlock;
}

void PrefixIndex::Insert(BlockId block, const Key& key) {
  assert(!Contains(block) && Find(key) == kNoBlock);
  uint64_t parent = 0;
  const bool rooted = ParentOf(key, parent);
  assert(rooted);
  if (!rooted) return;
  Entry& entry = entries_[static_cast<size_t>(block)];
  entry.number = next_number_++;
  entry.parent = parent;
  entry.hash = hash_(seed_, parent, key);
  if (parent == 0) entry.salt = key.salt;
  entry.tokens.assign(key.tokens.begin(), key.tokens.end());
  by_hash_.emplace(entry.hash, block);
}

void PrefixIndex::Erase(BlockId block) {
  Entry& entry = entries_[static_cast<size_t>(block)];
  assert(entry.number != 0);
  const auto [begin, end] = by_hash_.equal_range(entry.hash);
  const auto it = std::find_if(begin, end, [&](const auto& at) { return at.second == block; });
  assert(it != end);
  if (it != end) by_hash_.erase(it);
  entry.number = 0;
  entry.salt = {};  // a client's words are not kept for longer than they are of use
  entry.tokens.clear();
}

Status PrefixIndex::CheckIntegrity() const {
  std::unordered_set<uint64_t> numbers;
  for (const auto& [hash, block] : by_hash_) {
    numbers.insert(entries_[static_cast<size_t>(block)].number);
  }
  for (const auto& [hash, block] : by_hash_) {
    const Entry& entry = entries_[static_cast<size_t>(block)];
    if (entry.number == 0 || entry.hash != hash) {
      return MakeError(ErrorCode::kInternal, "KV block {} is not what the prefix index says",
                       block);
    }
    if (entry.parent != 0 && !numbers.contains(entry.parent)) {
      return MakeError(ErrorCode::kInternal, "KV block {} was kept longer than the one before it",
                       block);
    }
  }
  return {};
}

}  // namespace quern
