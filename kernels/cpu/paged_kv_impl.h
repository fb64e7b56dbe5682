#pragma once

#include <cstring>

#include "quern/kernels/attention.h"
#include "quern/kernels/numeric_types.h"

// What goes into the paged KV cache and comes out of it, over one `Simd` (included before this
// file).
namespace quern::kernels {
namespace {

inline void HalvesToFloats(const uint16_t* x, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + Simd::kLanes <= n; i += Simd::kLanes) Simd::StoreF(y + i, Simd::LoadHalf(x + i));
  for (; i < n; ++i) y[i] = HalfToFloat(x[i]);
}

// `rows` heads of `dim` elements in groups of 32, in order: padding is overwritten by the next.
inline void Int8ToFloats(const uint8_t* groups, int rows, int dim, float* y) {
  for (int row = 0; row < rows; ++row, y += dim) {
    for (int i = 0; i < dim; i += kKvGroup, groups += KvGroupBytes(KvDtype::kInt8)) {
      const Simd::F scale = Simd::Set(Simd::Half(groups));
      for (int j = 0; j < kKvGroup; j += Simd::kLanes) {
        Simd::StoreF(y + i + j, Simd::Mul(scale, Simd::LoadSigned8(groups + 2 + j)));
      }
    }
  }
}

inline void Int4ToFloats(const uint8_t* groups, int rows, int dim, float* y) {
  for (int row = 0; row < rows; ++row, y += dim) {
    for (int i = 0; i < dim; i += kKvGroup, groups += KvGroupBytes(KvDtype::kInt4)) {
      Simd::StoreLookedUp(groups + 2, kInt4Levels, Simd::Set(Simd::Half(groups)), y + i);
    }
  }
}

// `rows` heads of the cache, which lie one behind the other, as floats; up to a group behind them
// may be written, too.
inline void KvFloats(KvDtype dtype, const uint8_t* heads, int rows, int dim, float* y) {
  switch (dtype) {
    case KvDtype::kF32:
      std::memcpy(y, heads, static_cast<size_t>(rows) * static_cast<size_t>(dim) * sizeof(float));
      break;
    case KvDtype::kF16:
      HalvesToFloats(reinterpret_cast<const uint16_t*>(heads), int64_t{rows} * dim, y);
      break;
    case KvDtype::kInt8:
      Int8ToFloats(heads, rows, dim, y);
      break;
    case KvDtype::kInt4:
      Int4ToFloats(heads, rows, dim, y);
      break;
  }
}

// What one call has in its scratch, of AttentionScratchFloats. Keys and values lie in rows that are
// kAttentionPad floats longer than what they hold, or those of a power of two would fall into few
// sets of the L1 cache.
struct AttentionTile {
  static constexpr int kScoreStride = kAttentionTile;
  static constexpr int kKeyStride = kAttentionTile + kAttentionPad;

  AttentionTile(int dim, int count, float* scratch)
      : value_stride((dim + Simd::kLanes - 1) / Simd::kLanes * Simd::kLanes + kAttentionPad),
        keys(scratch),
        values(scratch),
        scores(scratch + AttentionTileFloats(dim)),
        out(scores + int64_t{count} * kScoreStride),
        rows(out + count * value_stride) {}

  float* Scores(int query) const { return scores + int64_t{query} * kScoreStride; }

  int64_t value_stride;
  // The values take the keys' place when these are done with: together they would not stay in the
  // L1 cache.
  float* keys;    // [dim][kKeyStride]: column t is the key of the tile's token t
  float* values;  // [kAttentionTile][value_stride]
  float* scores;  // [count][kScoreStride]
  float* out;     // [count][value_stride]: sums of weighted values so far
  float* rows;    // [kLanes][dim]: keys on their way to columns
};

// The tokens [begin, end) of a block table in runs that lie together in a block.
template <typename Visit>
inline void ForRuns(int block_tokens, int32_t begin, int32_t end, Visit visit) {
  while (begin < end) {
    const int slot = begin % block_tokens;
    int32_t run = block_tokens - slot;
    if (run > end - begin) run = end - begin;
    visit(begin, begin / block_tokens, slot, run);
    begin += run;
  }
}

// Brings the keys and values of tokens [begin, end) near, some lines at a time, while something
// else is computed: they lie in blocks here and there, which the processor does not foresee.
class KvPrefetch {
 public:
  // `calls`: how often Some will be called.
  KvPrefetch(const AttentionArgs& args, int32_t begin, int32_t end, int calls)
      : args_(args), next_(begin), end_(end) {
    const int64_t bytes =
        end > begin ? (end - begin) * KvTokenBytes(args.kv.dtype, args.kv.head_dim) : 0;
    lines_ = static_cast<int>(bytes / kLine / calls) + 1;
  }

  void Some() {
    for (int i = 0; i < lines_; ++i) {
      if (at_ >= run_end_ && !NextRun()) return;
      __builtin_prefetch(at_, 0, 2);
      at_ += kLine;
    }
  }

 private:
  static constexpr int kLine = 64;

  // A run of keys, then the values of the same tokens.
  bool NextRun() {
    const PagedKv& kv = args_.kv;
    if (next_ >= end_) return false;
    const int slot = next_ % kv.block_tokens;
    const int32_t block = args_.blocks[next_ / kv.block_tokens];
    int32_t run = kv.block_tokens - slot;
    if (run > end_ - next_) run = end_ - next_;
    at_ = values_ ? kv.Value(block, args_.kv_head, slot) : kv.Key(block, args_.kv_head, slot);
    run_end_ = at_ + run * KvHeadBytes(values_ ? kv.dtype : KeyDtype(kv.dtype), kv.head_dim);
    if (values_) next_ += run;
    values_ = !values_;
    return true;
  }

  const AttentionArgs& args_;
  int32_t next_;
  const int32_t end_;
  int lines_;
  bool values_ = false;
  const uint8_t* at_ = nullptr;
  const uint8_t* run_end_ = nullptr;
};

// Keys of one vector's width of tokens, which fill it and lie together in a block as halves, as
// columns: halves change places faster than floats.
inline void LoadHalfKeys(const uint8_t* heads, int dim, float* to_column) {
  const auto* halves = reinterpret_cast<const uint16_t*>(heads);
  for (int d = 0; d < dim; d += 8) {
    Simd::TransposeHalves(halves + d, dim, to_column + int64_t{d} * AttentionTile::kKeyStride,
                          AttentionTile::kKeyStride);
  }
}

// Keys of tokens [begin, end) as columns begin - base ... of the tile. Columns beside them get what
// was in `rows`.
inline void LoadKeys(const AttentionArgs& args, int32_t base, int32_t begin, int32_t end,
                     AttentionTile* tile, KvPrefetch* next) {
  const PagedKv& kv = args.kv;
  const int dim = kv.head_dim;
  constexpr int kLanes = Simd::kLanes;
  for (int32_t column = (begin - base) / kLanes * kLanes; column < end - base; column += kLanes) {
    const int32_t from = base + column > begin ? base + column : begin;
    const int32_t to = base + column + kLanes < end ? base + column + kLanes : end;
    float* to_column = tile->keys + column;
    next->Some();
    const int slot_of_first = from % kv.block_tokens;
    if (KeyDtype(kv.dtype) == KvDtype::kF16 && to - from == kLanes && dim % 8 == 0 &&
        slot_of_first + kLanes <= kv.block_tokens) {
      const int32_t block = args.blocks[from / kv.block_tokens];
      LoadHalfKeys(kv.Key(block, args.kv_head, slot_of_first), dim, to_column);
      continue;
    }
    ForRuns(kv.block_tokens, from, to, [&](int32_t token, int block, int slot, int run) {
      KvFloats(KeyDtype(kv.dtype), kv.Key(args.blocks[block], args.kv_head, slot), run, dim,
               tile->rows + int64_t{token - base - column} * dim);
    });
    int d = 0;
    for (; d + kLanes <= dim; d += kLanes) {
      Simd::Transpose(tile->rows + d, dim, to_column + int64_t{d} * AttentionTile::kKeyStride,
                      AttentionTile::kKeyStride);
    }
    for (; d < dim; ++d) {
      for (int t = 0; t < kLanes; ++t) {
        to_column[int64_t{d} * AttentionTile::kKeyStride + t] = tile->rows[int64_t{t} * dim + d];
      }
    }
  }
}

inline void LoadValues(const AttentionArgs& args, int32_t base, int32_t begin, int32_t end,
                       AttentionTile* tile, KvPrefetch* next) {
  const PagedKv& kv = args.kv;
  ForRuns(kv.block_tokens, begin, end, [&](int32_t token, int block, int slot, int run) {
    for (int i = 0; i < run; ++i) {  // in order: the padding of one is overwritten by the next
      KvFloats(kv.dtype, kv.Value(args.blocks[block], args.kv_head, slot + i), 1, kv.head_dim,
               tile->values + (token - base + i) * tile->value_stride);
      if (i % Simd::kLanes == 0) next->Some();
    }
  });
}

inline void FloatsToHalves(const float* x, int64_t n, uint16_t* y) {
  const Simd::F limit = Simd::Set(65504.0f);
  const Simd::F minus_limit = Simd::Set(-65504.0f);
  int64_t i = 0;
  for (; i + Simd::kLanes <= n; i += Simd::kLanes) {
    Simd::StoreHalf(y + i, Simd::Max(Simd::Min(Simd::LoadF(x + i), limit), minus_limit));
  }
  for (; i < n; ++i) {
    const float capped = x[i] > 65504.0f ? 65504.0f : x[i];
    y[i] = FloatToHalf(capped < -65504.0f ? -65504.0f : capped);
  }
}

inline void StoreKv(KvDtype dtype, const float* x, int dim, uint8_t* head) {
  if (IsQuantized(dtype)) {
    QuantizeKvHead(dtype, x, dim, head);
  } else if (dtype == KvDtype::kF32) {
    std::memcpy(head, x, static_cast<size_t>(dim) * sizeof(float));
  } else {
    FloatsToHalves(x, dim, reinterpret_cast<uint16_t*>(head));
  }
}

void AppendKv(const PagedKv& kv, int32_t block, int kv_head, int slot, const float* k,
              const float* v) {
  StoreKv(KeyDtype(kv.dtype), k, kv.head_dim, kv.Key(block, kv_head, slot));
  StoreKv(kv.dtype, v, kv.head_dim, kv.Value(block, kv_head, slot));
}

}  // namespace
}  // namespace quern::kernels
