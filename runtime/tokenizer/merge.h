#pragma once

#include <algorithm>
#include <cstdint>
#include <queue>
#include <vector>

#include "runtime/tokenizer/tokenizer.h"

namespace quern {

// A run of text that is one token so far: bytes [begin, begin + length), numbered `piece`.
struct Symbol {
  uint32_t begin;
  uint32_t length;  // 0 once it was merged into the one before
  int32_t piece;    // -1: no piece has this text
  int32_t previous = -1, next = -1;
};

// What two neighbours would become. The lowest cost is merged first, of equals the leftmost.
struct Merge {
  double cost = 0;
  int32_t piece = -1;  // -1: they do not merge
};

namespace merge_internal {

// Up to this many symbols, looking through all of them is faster than a heap.
inline constexpr size_t kFewSymbols = 24;

template <typename FindMerge>
void MergeFew(std::vector<Symbol>& symbols, const FindMerge& find) {
  Merge merges[kFewSymbols];
  size_t count = symbols.size();
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = count;
    for (size_t i = 0; i + 1 < count; ++i) {
      if (merges[i].piece >= 0 && (best == count || merges[i].cost < merges[best].cost)) best = i;
    }
    if (best == count) break;
    symbols[best].length += symbols[best + 1].length;
    symbols[best].piece = merges[best].piece;
    std::copy(symbols.begin() + static_cast<long>(best) + 2,
              symbols.begin() + static_cast<long>(count),
              symbols.begin() + static_cast<long>(best) + 1);
    // merges[best + 1] goes: it, merges[best - 1] and merges[best] are looked up anew below.
    if (best + 2 < count) std::copy(merges + best + 2, merges + count - 1, merges + best + 1);
    --count;
    if (best > 0) merges[best - 1] = find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = find(symbols[best], symbols[best + 1]);
  }
  symbols.resize(count);
}

template <typename FindMerge>
void MergeMany(std::vector<Symbol>& symbols, const FindMerge& find) {
  struct Entry {
    double cost;
    int32_t left, right;
    uint32_t length;  // of both when it was queued: another now means that one of them has changed
    int32_t piece;
    bool operator<(const Entry& other) const {
      return cost > other.cost || (cost == other.cost && left > other.left);
    }
  };
  std::priority_queue<Entry> queue;
  const auto consider = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const Symbol& l = symbols[left];
    const Symbol& r = symbols[right];
    const Merge merge = find(l, r);
    if (merge.piece >= 0) queue.push({merge.cost, left, right, l.length + r.length, merge.piece});
  };
  for (size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = static_cast<int32_t>(i) - 1;
    symbols[i].next = i + 1 < symbols.size() ? static_cast<int32_t>(i) + 1 : -1;
  }
  for (size_t i = 1; i < symbols.size(); ++i) {
    consider(static_cast<int32_t>(i) - 1, static_cast<int32_t>(i));
  }
  while (!queue.empty()) {
    const Entry entry = queue.top();
    queue.pop();
    Symbol& left = symbols[entry.left];
    Symbol& right = symbols[entry.right];
    if (left.length == 0 || right.length == 0 || left.length + right.length != entry.length)
      continue;
    left.length += right.length;
    left.piece = entry.piece;
    left.next = right.next;
    right.length = 0;
    if (left.next >= 0) symbols[left.next].previous = entry.left;
    consider(left.previous, entry.left);
    consider(entry.left, left.next);
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.length == 0; });
}

}  // namespace merge_internal

// Merges neighbours, cheapest first, until no two merge: the loop that BPE and SentencePiece share.
// `symbols` lie one after the other in the text. `find(const Symbol&, const Symbol&) -> Merge`.
// O(n log n) for n symbols.
template <typename FindMerge>
void MergeSymbols(std::vector<Symbol>& symbols, const FindMerge& find) {
  if (symbols.size() <= merge_internal::kFewSymbols) {
    merge_internal::MergeFew(symbols, find);
  } else {
    merge_internal::MergeMany(symbols, find);
  }
}

}  // namespace quern
