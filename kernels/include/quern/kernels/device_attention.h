#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "quern/kernels/device_kv.h"

namespace quern::kernels {

// Causal softmax attention over a paged cache for a batch of sequences on an NVIDIA GPU of compute
// capability 8.0 or later. The query i of a sequence's n sits at position context - n + i, and sees
// the tokens up to its own, at most `window` of them. All pointers are to the current device's
// memory.
struct DeviceAttentionArgs {
  ActivationType type;  // of q and out
  const void* q;        // [queries, q_heads * head_dim], rotated; 16-byte aligned
  int64_t q_stride;     // elements from query to query: a multiple of 8
  void* out;            // [queries, q_heads * head_dim], 16-byte aligned; apart from q
  int64_t out_stride;   // a multiple of 8
  int q_heads;          // a multiple of kv.kv_heads, which share them in order
  DeviceKv kv;          // with K and V of all queries
  // [sequences + 1]: the sequence s has the queries from query_begins[s] on, up to that of s + 1.
  // Sequences may have none.
  const int32_t* query_begins;
  const int32_t* contexts;  // [sequences]: tokens of each, its queries included
  // [sequences, table_stride]: the blocks of each, in order; entries that no query sees, beyond the
  // context or before all windows, are not read.
  const int32_t* tables;
  int64_t table_stride;
  int64_t sequences;    // from 0
  int64_t max_queries;  // of one sequence, from 1: more than that are left out
  int64_t max_context;  // at most 2^30; longer ones are cut short
  float scale;          // of q.k, before the softmax
  float softcap;        // scores become cap * tanh(score / cap); 0: none
  int window;           // tokens seen, the query's own included; 0: all
  // float32 [q_heads] or null: a logit for each head that takes part in the softmax and has no
  // value (attention sinks: Xiao et al. 2023; learned, as in GPT-OSS). Neither scaled nor capped.
  const float* sinks;
  // DecodeAttention's, DecodeAttentionWorkspaceBytes(args), 16-byte aligned; one per stream. It
  // need not be cleared.
  void* workspace = nullptr;
  size_t workspace_size = 0;
};

// For few queries a sequence (one, or a draft's): Flash-Decoding (Dao et al. 2023). The context is
// cut into splits that thread blocks take side by side; the query heads that share a KV head are
// the rows of one mma.sync, up to 16, so that K and V are read once for all of them. Where the cuts
// are depends on the sequence's own context and window alone, and parts are added in their order:
// what a sequence gets is the same bits whatever else is in the batch.
//
// Both return "", or what is wrong; then nothing is started. K's codes are multiplied as whole
// numbers and scaled in float32; V's values and the softmax's weights are rounded to the
// activations' type, sums are float32. Both may be called by several threads and captured into a
// graph (after a first call outside of one, which loads the kernels). The pages of sequences need
// not be apart.
[[nodiscard]] std::string DecodeAttention(const DeviceAttentionArgs& args, CUstream_st* stream);

// 0 where the context needs no split, or the arguments are wrong.
[[nodiscard]] size_t DecodeAttentionWorkspaceBytes(const DeviceAttentionArgs& args);

// For many queries a sequence: FlashAttention-2 (Dao 2023) over the paged cache. 64 rows, query
// heads and queries together, share each tile of K and V. Of a chunk of a prompt the queries see
// what is in the cache before it. Its bits do not depend on the batch either.
[[nodiscard]] std::string PrefillAttention(const DeviceAttentionArgs& args, CUstream_st* stream);

}  // namespace quern::kernels
