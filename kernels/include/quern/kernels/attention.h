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
  float* out;        // [head_dim]
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

// Floats of scratch that one call needs: keys, scores, sums, values, and keys of one vector's
// width. Groups are written whole: the last may reach beyond.
constexpr int64_t AttentionScratchFloats(int head_dim) {
  constexpr int64_t kWidest = 16;  // lanes of a vector
  const int64_t value_stride = (head_dim + kWidest - 1) / kWidest * kWidest + kAttentionPad;
  return int64_t{head_dim} * (kAttentionTile + kAttentionPad) +
         int64_t{kAttentionMaxQueries} * (kAttentionTile + value_stride) +
         kAttentionTile * value_stride + kWidest * head_dim + 2 * kKvGroup;
}

// Causal softmax attention of up to kAttentionMaxQueries queries that share a sequence and a KV
// head (GQA: query heads of one group, of one or several positions), in one pass over the cache
// with a running maximum and sum (Milakov & Gimelshein 2018; in tiles: Dao et al. 2022). K and V
// are read once, converted once, and used for all queries, as blocked matrix products.
using AttentionFn = void (*)(const AttentionArgs& args, const AttentionQuery* queries, int count,
                             float* scratch);

// Writes one token's K and V of one head [head_dim] into the cache, rounded to its dtype.
using AppendKvFn = void (*)(const PagedKv& kv, int32_t block, int kv_head, int slot, const float* k,
                            const float* v);

namespace ref {
void Attention(const AttentionArgs& args, const AttentionQuery* queries, int count);
void AppendKv(const PagedKv& kv, int32_t block, int kv_head, int slot, const float* k,
              const float* v);
}  // namespace ref
}  // namespace quern::kernels
