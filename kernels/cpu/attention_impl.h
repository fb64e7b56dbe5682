#pragma once

#include <cmath>
#include <cstring>

#include "kernels/cpu/elementwise_impl.h"
#include "quern/kernels/attention.h"
#include "quern/kernels/numeric_types.h"

// Paged attention over one `Simd` (included before this file).
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
        scores(keys + int64_t{dim} * kKeyStride),
        out(scores + int64_t{count} * kScoreStride),
        values(out + count * value_stride),
        rows(values + kAttentionTile * value_stride + kKvGroup) {}

  int64_t value_stride;
  float* keys;    // [dim][kKeyStride]: column t is the key of the tile's token t
  float* scores;  // [count][kScoreStride]
  float* out;     // [count][value_stride]: sums of weighted values so far
  float* values;  // [kAttentionTile][value_stride]
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

// Keys of tokens [begin, end) as columns begin - base ... of the tile. Columns beside them get what
// was in `rows`.
inline void LoadKeys(const AttentionArgs& args, int32_t base, int32_t begin, int32_t end,
                     AttentionTile* tile) {
  const PagedKv& kv = args.kv;
  const int dim = kv.head_dim;
  constexpr int kLanes = Simd::kLanes;
  for (int32_t column = (begin - base) / kLanes * kLanes; column < end - base; column += kLanes) {
    const int32_t from = base + column > begin ? base + column : begin;
    const int32_t to = base + column + kLanes < end ? base + column + kLanes : end;
    ForRuns(kv.block_tokens, from, to, [&](int32_t token, int block, int slot, int run) {
      KvFloats(KeyDtype(kv.dtype), kv.Key(args.blocks[block], args.kv_head, slot), run, dim,
               tile->rows + int64_t{token - base - column} * dim);
    });
    float* to_column = tile->keys + column;
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
                       AttentionTile* tile) {
  const PagedKv& kv = args.kv;
  ForRuns(kv.block_tokens, begin, end, [&](int32_t token, int block, int slot, int run) {
    for (int i = 0; i < run; ++i) {  // in order: the padding of one is overwritten by the next
      KvFloats(kv.dtype, kv.Value(args.blocks[block], args.kv_head, slot + i), 1, kv.head_dim,
               tile->values + (token - base + i) * tile->value_stride);
    }
  });
}

// c[r] = keep[r] * c[r] + the sum over k of a[r][k] * b[k], or without the first term if `keep` is
// null: kRows rows of kVecs vectors in registers. Each element is one chain in the order of k,
// whatever kRows and kVecs are.
template <int kRows, int kVecs>
[[gnu::noinline]] void MultiplyBlock(const float* const* a, const float* b, int64_t b_stride,
                                     int depth, const float* keep, float* c, int64_t c_stride) {
  Simd::F sums[kRows][kVecs];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      sums[r][v] = keep == nullptr ? Simd::Set(0)
                                   : Simd::Mul(Simd::Set(keep[r]),
                                               Simd::LoadF(c + r * c_stride + v * Simd::kLanes));
    }
  }
  for (int k = 0; k < depth; ++k, b += b_stride) {
    Simd::F columns[kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) columns[v] = Simd::LoadF(b + v * Simd::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Simd::F x = Simd::Set(a[r][k]);
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) sums[r][v] = Simd::Fma(x, columns[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      Simd::StoreF(c + r * c_stride + v * Simd::kLanes, sums[r][v]);
    }
  }
}

constexpr int kBlockRows = 6;                           // with kBlockVecs, what AVX2's 16 and
constexpr int kBlockVecs = Simd::kLanes == 16 ? 4 : 2;  // AVX-512's 32 registers hold

template <int kVecs>
inline void MultiplyRows(int rows, const float* const* a, const float* b, int64_t b_stride,
                         int depth, const float* keep, float* c, int64_t c_stride) {
  static_assert(kBlockRows == 6);
  switch (rows) {
    case 1:
      return MultiplyBlock<1, kVecs>(a, b, b_stride, depth, keep, c, c_stride);
    case 2:
      return MultiplyBlock<2, kVecs>(a, b, b_stride, depth, keep, c, c_stride);
    case 3:
      return MultiplyBlock<3, kVecs>(a, b, b_stride, depth, keep, c, c_stride);
    case 4:
      return MultiplyBlock<4, kVecs>(a, b, b_stride, depth, keep, c, c_stride);
    case 5:
      return MultiplyBlock<5, kVecs>(a, b, b_stride, depth, keep, c, c_stride);
    default:
      return MultiplyBlock<6, kVecs>(a, b, b_stride, depth, keep, c, c_stride);
  }
}

// The same for columns [begin, end), in vectors: `begin` is a vector's first, and the last vector
// is taken whole.
inline void Multiply(int rows, const float* const* a, const float* b, int64_t b_stride, int depth,
                     const float* keep, float* c, int64_t c_stride, int begin, int end) {
  int column = begin;
  for (; column + kBlockVecs * Simd::kLanes <= end; column += kBlockVecs * Simd::kLanes) {
    MultiplyRows<kBlockVecs>(rows, a, b + column, b_stride, depth, keep, c + column, c_stride);
  }
  for (; column < end; column += Simd::kLanes) {
    MultiplyRows<1>(rows, a, b + column, b_stride, depth, keep, c + column, c_stride);
  }
}

// A query's softmax over the tiles so far, the tile's tokens that it sees, and what its sums so far
// are to be multiplied by.
struct RunningSoftmax {
  float largest = -INFINITY;
  float total = 0;
  int begin = 0;
  int end = 0;
  float keep = 0;
};

// Products become weights, of the tokens that are seen.
inline void WeighScores(const AttentionArgs& args, float* scores, RunningSoftmax* state) {
  constexpr int kLanes = Simd::kLanes;
  static_assert(kAttentionTile % kLanes == 0);
  const int begin = state->begin;
  const int end = state->end;
  if (begin >= end) return;
  const int from = begin / kLanes * kLanes;
  const int to = (end + kLanes - 1) / kLanes * kLanes;
  const Simd::F scale = Simd::Set(args.scale);
  for (int t = from; t < to; t += kLanes) {
    Simd::StoreF(scores + t, Simd::Mul(scale, Simd::LoadF(scores + t)));
  }
  if (args.softcap > 0) Softcap(args.softcap, to - from, scores + from);
  for (int t = from; t < begin; ++t) scores[t] = -INFINITY;
  for (int t = end; t < to; ++t) scores[t] = -INFINITY;
  Simd::F largest = Simd::Set(state->largest);
  for (int t = from; t < to; t += kLanes) largest = Simd::Max(largest, Simd::LoadF(scores + t));
  const float new_largest = Simd::MaxOf(largest);
  for (int t = from; t < to; t += kLanes) {
    Simd::StoreF(scores + t, Exp(Simd::Sub(Simd::LoadF(scores + t), Simd::Set(new_largest))));
  }
  // Exp of -infinity is 1.6e-38.
  for (int t = from; t < begin; ++t) scores[t] = 0;
  for (int t = end; t < to; ++t) scores[t] = 0;
  Simd::F sums = Simd::Set(0);
  for (int t = from; t < to; t += kLanes) sums = Simd::Add(sums, Simd::LoadF(scores + t));
  state->keep = state->total == 0 ? 0.0f : std::exp(state->largest - new_largest);
  state->largest = new_largest;
  state->total = state->total * state->keep + Simd::Sum(sums);
}

// scores = q k^T of up to kBlockRows queries, in whole vectors.
inline void ScoreBlock(const AttentionQuery* queries, int rows, const RunningSoftmax* states,
                       const AttentionTile& tile, int dim, float* scores) {
  int begin = kAttentionTile;
  int end = 0;  // what any of them sees
  const float* q[kBlockRows];
  for (int r = 0; r < rows; ++r) {
    q[r] = queries[r].q;
    if (states[r].begin >= states[r].end) continue;
    begin = states[r].begin < begin ? states[r].begin : begin;
    end = states[r].end > end ? states[r].end : end;
  }
  if (begin >= end) return;
  Multiply(rows, q, tile.keys, AttentionTile::kKeyStride, dim, nullptr, scores,
           AttentionTile::kScoreStride, begin / Simd::kLanes * Simd::kLanes, end);
}

// out = keep * out + weights v of up to kBlockRows queries, of what each of them sees alone: where
// only some see a value, it goes into these one by one. A weight of 0 would not do, if the value is
// no number.
inline void SumBlock(const float* weights, int rows, const RunningSoftmax* states,
                     const AttentionTile& tile, int dim, float* out) {
  int begin = 0;
  int end = kAttentionTile;  // what all see
  for (int r = 0; r < rows; ++r) {
    begin = states[r].begin > begin ? states[r].begin : begin;
    end = states[r].end < end ? states[r].end : end;
  }
  const float* w[kBlockRows];
  float keep[kBlockRows];
  for (int r = 0; r < rows; ++r) {
    w[r] = weights + int64_t{r} * AttentionTile::kScoreStride;
    keep[r] = states[r].keep;
  }
  const auto sum = [&](int first_row, int num_rows, int from, int to) {
    if (from >= to) return;
    const float* a[kBlockRows];
    for (int r = 0; r < num_rows; ++r) a[r] = w[first_row + r] + from;
    Multiply(num_rows, a, tile.values + from * tile.value_stride, tile.value_stride, to - from,
             keep + first_row, out + first_row * tile.value_stride, tile.value_stride, 0, dim);
    for (int r = 0; r < num_rows; ++r) keep[first_row + r] = 1;
  };
  if (begin >= end) {
    for (int r = 0; r < rows; ++r) sum(r, 1, states[r].begin, states[r].end);
    return;
  }
  for (int r = 0; r < rows; ++r) sum(r, 1, states[r].begin, begin);
  sum(0, rows, begin, end);
  for (int r = 0; r < rows; ++r) sum(r, 1, end, states[r].end);
}

// Folds a tile, of which what the queries see is loaded, into their results: products, softmax and
// sums one after the other, so that the keys, then the values stay near.
inline void AttendTile(const AttentionArgs& args, const AttentionQuery* queries, int count,
                       RunningSoftmax* states, const AttentionTile& tile) {
  const int dim = args.kv.head_dim;
  const auto scores = [&](int i) { return tile.scores + int64_t{i} * AttentionTile::kScoreStride; };
  const auto rows = [&](int i) { return count - i < kBlockRows ? count - i : kBlockRows; };
  for (int i = 0; i < count; i += kBlockRows) {
    ScoreBlock(queries + i, rows(i), states + i, tile, dim, scores(i));
  }
  for (int i = 0; i < count; ++i) WeighScores(args, scores(i), &states[i]);
  for (int i = 0; i < count; i += kBlockRows) {
    SumBlock(scores(i), rows(i), states + i, tile, dim, tile.out + i * tile.value_stride);
  }
}

// Tiles begin at multiples of kAttentionTile, tokens that a query does not see weigh nothing, and
// every sum runs in the order of tokens: a query's bits are the same, whoever shares the call.
void Attention(const AttentionArgs& args, const AttentionQuery* queries, int count,
               float* scratch) {
  const int dim = args.kv.head_dim;
  AttentionTile tile(dim, count, scratch);
  RunningSoftmax states[kAttentionMaxQueries];
  const auto first_seen = [&](const AttentionQuery& query) {
    const int32_t start = query.position - args.window + 1;
    return args.window > 0 && start > 0 ? start : 0;
  };
  int32_t first = INT32_MAX;
  int32_t last = 0;
  for (int i = 0; i < count; ++i) {
    first = first_seen(queries[i]) < first ? first_seen(queries[i]) : first;
    last = queries[i].position > last ? queries[i].position : last;
  }
  std::memset(tile.out, 0, static_cast<size_t>(count * tile.value_stride) * sizeof(float));
  for (int32_t base = first - first % kAttentionTile; base <= last; base += kAttentionTile) {
    const int32_t begin = first > base ? first : base;
    const int32_t end = last + 1 < base + kAttentionTile ? last + 1 : base + kAttentionTile;
    LoadKeys(args, base, begin, end, &tile);
    LoadValues(args, base, begin, end, &tile);
    for (int i = 0; i < count; ++i) {
      states[i].begin = first_seen(queries[i]) > base ? first_seen(queries[i]) - base : 0;
      states[i].end = queries[i].position + 1 < end ? queries[i].position + 1 - base : end - base;
    }
    AttendTile(args, queries, count, states, tile);
  }
  for (int i = 0; i < count; ++i) {
    const float inverse = 1.0f / states[i].total;
    const float* out = tile.out + i * tile.value_stride;
    for (int d = 0; d < dim; ++d) queries[i].out[d] = out[d] * inverse;
  }
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
