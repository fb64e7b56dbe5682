#pragma once

#include <bit>
#include <cstdint>
#include <string>

#include "quern/kernels/activation_type.h"

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// out[t, i] = table[ids[t] - first, i] * scale, in float32, on an NVIDIA GPU of compute
// capability 8.0 or later: the residual stream at a model's start. Of a table that is a part of a
// vocabulary, the first row is that of the id `first`. A row whose id is not in [first, first +
// vocab) becomes `absent`, and nothing of the table is read for it: NaN, so that what is computed
// from it says so, or 0 where the parts' rows are added up. All pointers are to the current
// device's memory.
inline constexpr float kNoRow = std::bit_cast<float>(0x7fffffff);

struct EmbeddingGatherArgs {
  ActivationType type;   // of the table
  const void* table;     // [vocab, hidden], 8-byte aligned
  int64_t table_stride;  // elements from row to row: a multiple of 4, at least hidden
  int64_t vocab;         // rows of the table, from 1 to 2^31 - 1
  int64_t hidden;        // a multiple of 4, from 4 to 2^20
  const int32_t* ids;    // [tokens]
  int64_t tokens;        // from 0 (nothing is done) to 2^31 - 1
  float scale;           // 1, or Gemma's sqrt(hidden)
  float* out;            // [tokens, hidden], 16-byte aligned; not the table's memory
  int64_t out_stride;    // elements: a multiple of 4, at least hidden
  int32_t first = 0;     // from 0
  float absent = kNoRow;
};

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. May be called by several threads, and captured into a graph.
[[nodiscard]] std::string EmbeddingGather(const EmbeddingGatherArgs& args, CUstream_st* stream);

namespace ref {
// The same of one token, its row widened to float32.
void EmbeddingGather(const float* table, int64_t vocab, int64_t hidden, int32_t id, float scale,
                     float* out);
}  // namespace ref
}  // namespace quern::kernels
