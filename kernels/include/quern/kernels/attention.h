#pragma once

#include <cstdint>

#include "quern/kernels/kv_format.h"

namespace quern::kernels {

// A layer's KV cache: [block][kv_head][slot] of KvHeadBytes, K and V apart, K of KeyDtype. Token i
// of a sequence lives in blocks[i / block_tokens], slot i % block_tokens.
struct PagedKv {
  KvDtype dtype;
  uint8_t* k;
  uint8_t* v;
  int block_tokens;
  int kv_heads;
  int head_dim;

  uint8_t* Key(int32_t block, int kv_head, int slot) const {
    return k + Index(block, kv_head, slot) * KvHeadBytes(KeyDtype(dtype), head_dim);
  }
  uint8_t* Value(int32_t block, int kv_head, int slot) const {
    return v + Index(block, kv_head, slot) * KvHeadBytes(dtype, head_dim);
  }
  int64_t Index(int32_t block, int kv_head, int slot) const {
    return (static_cast<int64_t>(block) * kv_heads + kv_head) * block_tokens + slot;
  }
};

struct AttentionQuery {
  const float* q;    // [head_dim], rotated
  float* out;        // [head_dim]; apart from every q
  int32_t position;  // attends to tokens max(0, position - window + 1) .. position
};

struct AttentionArgs {
  PagedKv kv;
  const int32_t* blocks;  // of the sequence
  int kv_head;
  float scale;    // of q.k, before the softmax
  float softcap;  // scores become cap * tanh(score / cap); 0: none
  int window;     // tokens seen, the query's own included; 0: all
};

inline constexpr int kAttentionMaxQueries = 128;
inline constexpr int kAttentionTile = 64;  // tokens taken at a time
inline constexpr int kAttentionPad = 16;
// A context is taken in segments of so many tokens, [i * kAttentionSegment, (i + 1) * ...), each of
// which has sums of its own, so that threads can share it: bits do not depend on who did.
inline constexpr int kAttentionSegment = 512;
static_assert(kAttentionSegment % kAttentionTile == 0);

// Floats from one row of values or of sums to the next, for the widest vectors.
constexpr int64_t AttentionValueStride(int head_dim) {
  constexpr int64_t kWidest = 16;  // lanes
  return (head_dim + kWidest - 1) / kWidest * kWidest + kAttentionPad;
}

// Of a tile's keys, or its values. Groups are written whole: the last may reach beyond.
constexpr int64_t AttentionTileFloats(int head_dim) {
  const int64_t keys = int64_t{head_dim} * (kAttentionTile + kAttentionPad);
  const int64_t values = kAttentionTile * AttentionValueStride(head_dim) + kKvGroup;
  return keys > values ? keys : values;
}

// Floats of scratch that one call needs: keys or values, scores, sums, and keys of one vector's
// width.
constexpr int64_t AttentionScratchFloats(int head_dim) {
  return AttentionTileFloats(head_dim) +
         kAttentionMaxQueries * (kAttentionTile + AttentionValueStride(head_dim)) +
         int64_t{16} * head_dim + kKvGroup;
}

// Causal softmax attention of up to kAttentionMaxQueries queries that share a sequence and a KV
// head (GQA: query heads of one group, of one or several positions), in one pass over the cache
// with a running maximum and sum (Milakov & Gimelshein 2018; in tiles: Dao et al. 2022). K and V
// are read once, converted once, and used for all queries, as blocked matrix products.
using AttentionFn = void (*)(const AttentionArgs& args, const AttentionQuery* queries, int count,
                             float* scratch);

// What a query has of one segment: sums of weighted values [head_dim], the largest score, and the
// sum of the weights, which are exp(score - largest).
constexpr int64_t AttentionPartFloats(int head_dim) { return int64_t{head_dim} + 2; }

// The same over one segment: parts [count][AttentionPartFloats]; `out` of the queries is not
// touched. A query may see nothing of it.
using AttentionSegmentFn = void (*)(const AttentionArgs& args, const AttentionQuery* queries,
                                    int count, int32_t segment, float* parts, float* scratch);

// Of one query's parts, `count` of them, in the order of segments and `stride` floats apart, makes
// what AttentionFn gives, bit by bit (Flash-Decoding, Dao et al. 2023). Together they are to be of
// all that it sees; parts of segments that it does not see change nothing.
using CombineAttentionFn = void (*)(const float* parts, int64_t stride, int count, int head_dim,
                                    float* out);

// Writes one token's K and V of one head [head_dim] into the cache, rounded to its dtype.
using AppendKvFn = void (*)(const PagedKv& kv, int32_t block, int kv_head, int slot, const float* k,
                            const float* v);

namespace ref {
// `sinks` [count]: for each query a logit without a value that takes part in the softmax (Xiao et
// al. 2023), neither scaled nor capped; null: none.
void Attention(const AttentionArgs& args, const AttentionQuery* queries, int count,
               const float* sinks = nullptr);
void AppendKv(const PagedKv& kv, int32_t block, int kv_head, int slot, const float* k,
              const float* v);
}  // namespace ref
}  // namespace quern::kernels
