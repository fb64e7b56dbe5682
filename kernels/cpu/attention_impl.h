#pragma once

#include <cmath>
#include <cstring>

#include "kernels/cpu/elementwise_impl.h"
#include "kernels/cpu/paged_kv_impl.h"
#include "quern/kernels/attention.h"

// Paged attention over one `Simd` (included before this file).
namespace quern::kernels {
namespace {

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
                     const float* keep, float* c, int64_t c_stride, int begin, int end,
                     KvPrefetch* next) {
  int column = begin;
  for (; column + kBlockVecs * Simd::kLanes <= end; column += kBlockVecs * Simd::kLanes) {
    next->Some();
    MultiplyRows<kBlockVecs>(rows, a, b + column, b_stride, depth, keep, c + column, c_stride);
  }
  for (; column < end; column += Simd::kLanes) {
    MultiplyRows<1>(rows, a, b + column, b_stride, depth, keep, c + column, c_stride);
  }
}

// The largest score, and the sum of exp(score - largest): 0 where nothing was seen.
struct SoftmaxSum {
  float largest = -INFINITY;
  float total = 0;
};

// A query's softmax over the tiles of a segment so far, the tile's tokens that it sees, and what
// its sums so far are to be multiplied by.
struct RunningSoftmax {
  SoftmaxSum sum;
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
  Simd::F largest = Simd::Set(state->sum.largest);
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
  state->keep = state->sum.total == 0 ? 0.0f : std::exp(state->sum.largest - new_largest);
  state->sum.largest = new_largest;
  state->sum.total = state->sum.total * state->keep + Simd::Sum(sums);
}

// scores = q k^T of up to kBlockRows queries, in whole vectors.
inline void ScoreBlock(const AttentionQuery* queries, int rows, const RunningSoftmax* states,
                       const AttentionTile& tile, int dim, float* scores, KvPrefetch* next) {
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
           AttentionTile::kScoreStride, begin / Simd::kLanes * Simd::kLanes, end, next);
}

// out = keep * out + weights v of up to kBlockRows queries, of what each of them sees alone: where
// only some see a value, it goes into these one by one. A weight of 0 would not do, if the value is
// no number.
inline void SumBlock(const float* weights, int rows, const RunningSoftmax* states,
                     const AttentionTile& tile, int dim, float* out, KvPrefetch* next) {
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
             keep + first_row, out + first_row * tile.value_stride, tile.value_stride, 0, dim,
             next);
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

inline int BlockRows(int count, int first) {
  return count - first < kBlockRows ? count - first : kBlockRows;
}

// Of a tile whose keys are loaded, the weights of what the queries see.
inline void WeighTile(const AttentionArgs& args, const AttentionQuery* queries, int count,
                      RunningSoftmax* states, const AttentionTile& tile, KvPrefetch* next) {
  for (int i = 0; i < count; i += kBlockRows) {
    ScoreBlock(queries + i, BlockRows(count, i), states + i, tile, args.kv.head_dim, tile.Scores(i),
               next);
  }
  for (int i = 0; i < count; ++i) WeighScores(args, tile.Scores(i), &states[i]);
}

// Of a tile whose values are loaded, the sums.
inline void SumTile(const AttentionArgs& args, int count, const RunningSoftmax* states,
                    const AttentionTile& tile, KvPrefetch* next) {
  for (int i = 0; i < count; i += kBlockRows) {
    SumBlock(tile.Scores(i), BlockRows(count, i), states + i, tile, args.kv.head_dim,
             tile.out + i * tile.value_stride, next);
  }
}

inline int32_t FirstSeen(const AttentionArgs& args, const AttentionQuery& query) {
  const int32_t start = query.position - args.window + 1;
  return args.window > 0 && start > 0 ? start : 0;
}

// The tokens that any of the queries sees.
struct SeenTokens {
  int32_t first = INT32_MAX;
  int32_t end = 0;

  SeenTokens(const AttentionArgs& args, const AttentionQuery* queries, int count) {
    for (int i = 0; i < count; ++i) {
      first = FirstSeen(args, queries[i]) < first ? FirstSeen(args, queries[i]) : first;
      end = queries[i].position + 1 > end ? queries[i].position + 1 : end;
    }
  }
};

// One segment's sums into `tile.out`, and their softmax into `states`. Tiles begin at multiples of
// kAttentionTile, tokens that a query does not see weigh nothing, and every sum runs in the order
// of tokens: a query's bits are the same, whoever shares the call. Not inline, as FoldSegment.
[[gnu::noinline]] void AttendSegment(const AttentionArgs& args, const AttentionQuery* queries,
                                     int count, const SeenTokens& seen, int32_t segment,
                                     RunningSoftmax* states, AttentionTile* tile) {
  const int dim = args.kv.head_dim;
  const int32_t from = segment * kAttentionSegment;
  const int32_t first = seen.first > from ? seen.first : from;
  const int32_t last = seen.end < from + kAttentionSegment ? seen.end : from + kAttentionSegment;
  for (int i = 0; i < count; ++i) states[i] = {};
  std::memset(tile->out, 0, static_cast<size_t>(count * tile->value_stride) * sizeof(float));
  for (int32_t base = first - first % kAttentionTile; base < last; base += kAttentionTile) {
    const int32_t begin = first > base ? first : base;
    const int32_t end = last < base + kAttentionTile ? last : base + kAttentionTile;
    for (int i = 0; i < count; ++i) {
      const int32_t query_first = FirstSeen(args, queries[i]);
      states[i].begin = query_first > base ? query_first - base : 0;
      states[i].end = queries[i].position + 1 < end ? queries[i].position + 1 - base : end - base;
    }
    const int32_t next = base + kAttentionTile;
    const int32_t next_end = next + kAttentionTile < seen.end ? next + kAttentionTile : seen.end;
    const int calls = (count + kBlockRows - 1) / kBlockRows * (kAttentionTile + dim) /
                      (kBlockVecs * Simd::kLanes);
    KvPrefetch prefetch(args, next, next_end, calls + 2 * kAttentionTile / Simd::kLanes);
    LoadKeys(args, base, begin, end, tile, &prefetch);
    WeighTile(args, queries, count, states, *tile, &prefetch);
    LoadValues(args, base, begin, end, tile, &prefetch);
    SumTile(args, count, states, *tile, &prefetch);
  }
}

// A segment's sums into those of the segments before it. Not inline: whoever calls it gets the same
// bits.
[[gnu::noinline]] void FoldSegment(int dim, const float* sums, const SoftmaxSum& segment,
                                   float* out, SoftmaxSum* so_far) {
  if (segment.total == 0) return;
  if (so_far->total == 0) {
    std::memcpy(out, sums, static_cast<size_t>(dim) * sizeof(float));
    *so_far = segment;
    return;
  }
  const float largest = segment.largest > so_far->largest ? segment.largest : so_far->largest;
  const float keep = std::exp(so_far->largest - largest);
  const float add = std::exp(segment.largest - largest);
  int d = 0;
  for (; d + Simd::kLanes <= dim; d += Simd::kLanes) {
    const Simd::F kept = Simd::Mul(Simd::Set(keep), Simd::LoadF(out + d));
    Simd::StoreF(out + d, Simd::Fma(Simd::Set(add), Simd::LoadF(sums + d), kept));
  }
  for (; d < dim; ++d) out[d] = std::fma(add, sums[d], keep * out[d]);
  so_far->largest = largest;
  so_far->total = so_far->total * keep + segment.total * add;
}

inline void Normalise(int dim, float total, float* out) {
  const float inverse = 1.0f / total;
  for (int d = 0; d < dim; ++d) out[d] *= inverse;
}

void Attention(const AttentionArgs& args, const AttentionQuery* queries, int count,
               float* scratch) {
  const int dim = args.kv.head_dim;
  AttentionTile tile(dim, count, scratch);
  RunningSoftmax states[kAttentionMaxQueries];
  SoftmaxSum sums[kAttentionMaxQueries];
  const SeenTokens seen(args, queries, count);
  for (int32_t segment = seen.first / kAttentionSegment; segment * kAttentionSegment < seen.end;
       ++segment) {
    AttendSegment(args, queries, count, seen, segment, states, &tile);
    for (int i = 0; i < count; ++i) {
      FoldSegment(dim, tile.out + i * tile.value_stride, states[i].sum, queries[i].out, &sums[i]);
    }
  }
  for (int i = 0; i < count; ++i) Normalise(dim, sums[i].total, queries[i].out);
}

void AttentionSegment(const AttentionArgs& args, const AttentionQuery* queries, int count,
                      int32_t segment, float* parts, float* scratch) {
  const int dim = args.kv.head_dim;
  AttentionTile tile(dim, count, scratch);
  RunningSoftmax states[kAttentionMaxQueries];
  AttendSegment(args, queries, count, SeenTokens(args, queries, count), segment, states, &tile);
  for (int i = 0; i < count; ++i, parts += AttentionPartFloats(dim)) {
    std::memcpy(parts, tile.out + i * tile.value_stride, static_cast<size_t>(dim) * sizeof(float));
    parts[dim] = states[i].sum.largest;
    parts[dim + 1] = states[i].sum.total;
  }
}

void CombineAttention(const float* parts, int64_t stride, int count, int head_dim, float* out) {
  SoftmaxSum sum;
  for (int i = 0; i < count; ++i, parts += stride) {
    FoldSegment(head_dim, parts, {parts[head_dim], parts[head_dim + 1]}, out, &sum);
  }
  Normalise(head_dim, sum.total, out);
}

}  // namespace
}  // namespace quern::kernels
