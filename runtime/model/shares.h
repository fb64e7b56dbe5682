#pragma once

#include <cstdint>

#include "runtime/base/result.h"
#include "runtime/model/hyperparameters.h"

namespace quern {

// Of a dimension of a weight, what one rank has: [begin, begin + size) of `whole`. A number alone
// is all of it.
struct Part {
  Part(int64_t all) : size(all), whole(all) {}  // NOLINT(google-explicit-constructor): on purpose
  Part(int64_t first, int64_t count, int64_t all) : begin(first), size(count), whole(all) {}
  int64_t end() const { return begin + size; }
  Part operator*(int64_t factor) const { return {begin * factor, size * factor, whole * factor}; }

  int64_t begin = 0;
  int64_t size = 0;
  int64_t whole = 0;
};

// What one of several ranks has of a model, after Shoeybi et al. 2019 (Megatron-LM, arXiv
// 1909.08053): heads of attention, with the outputs of the matrices that make them and the inputs
// of the one that joins them; the same of the feed-forward network's width, or of each expert's,
// whose router all have; a part of the vocabulary in the embedding and the head.
struct Shares {
  Part heads = 0;
  Part kv_heads = 0;
  Part ffn = 0;         // 0 where there are experts
  Part expert_ffn = 0;  // of each
  Part vocab = 0;
};

// `whole` in units, as evenly as it goes over `size` ranks. A multiple of `unit` of at least `size`
// of them.
Part SplitEvenly(int64_t whole, int64_t unit, int rank, int size);

// Columns that cannot be parted, blocks of the types that weights are stored as: of attn_output,
// of ffn_down, and of ffn_down_exps.
struct ShareUnits {
  int64_t attention = 1;
  int64_t ffn = 1;
  int64_t expert_ffn = 1;
};

// Heads are split evenly. So are KV heads, where their number is a multiple of the ranks'; where it
// is the other way round, ranks that share one each have a copy. kUnsupported where the model does
// not go into so many parts: which of its numbers, and what numbers of ranks it suits.
Result<Shares> ShareOut(const Hyperparameters& h, const ShareUnits& units, int rank, int size);

}  // namespace quern
