#pragma once

#include <cstdint>
#include <string>

#include "quern/kernels/embedding_gather.h"
#include "quern/kernels/gguf_weights.h"

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// out[t, i] = table[ids[t] - first, i] * scale, in float32, on an NVIDIA GPU of compute
// capability 8.0 or later, from a table of GGUF's types in the layout that GgufMatMul reads: so one
// copy serves as embedding and as output head. Each weight is UnpackGgufRow's, bit for bit as far
// as it is a number, and is rounded once more by the scale. `first` and `absent` are those of
// EmbeddingGatherArgs. All pointers are to the current device's memory.
struct GgufGatherArgs {
  GgufMatrix table;    // [vocab, hidden]; hidden (table.cols) up to 2^20
  const int32_t* ids;  // [tokens]
  int64_t tokens;      // from 0 (nothing is done) to 2^31 - 1
  float scale;         // 1, or Gemma's sqrt(hidden)
  float* out;          // [tokens, hidden], 16-byte aligned; not the table's memory
  int64_t out_stride;  // elements: a multiple of 4, at least hidden
  int32_t first = 0;   // from 0
  float absent = kNoRow;
};

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. May be called by several threads, and captured into a graph.
[[nodiscard]] std::string GgufGather(const GgufGatherArgs& args, CUstream_st* stream);

}  // namespace quern::kernels
