#pragma once

#include <cstdint>
#include <string>

#include "quern/kernels/activation_type.h"
#include "quern/kernels/moe_route.h"

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// out[t] = sum over the slots s, in their order, of weights[t, s] * y[pair_rows[t * top_k + s]], in
// float32 and rounded once: the experts' results back to their tokens. A slot without a row adds
// nothing. On an NVIDIA GPU of compute capability 8.0 or later; all pointers are to the current
// device's memory.
struct MoeCombineArgs {
  ActivationType type;       // of y and out
  int64_t tokens;            // from 0 (nothing is done); tokens * hidden / 8 is below 2^31
  int64_t top_k;             // from 1 to kMaxChosenExperts
  int64_t hidden;            // a multiple of 8
  const void* y;             // [rows, hidden], 16-byte aligned
  int64_t y_stride;          // elements from row to row: a multiple of 8, at least hidden
  const int32_t* pair_rows;  // [tokens, top_k]: MoePermute's; below 0: none
  const float* weights;      // [tokens, top_k]
  void* out;                 // [tokens, hidden], 16-byte aligned; not y's memory
  int64_t out_stride;        // a multiple of 8, at least hidden
};

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. May be called by several threads, and captured into a graph.
[[nodiscard]] std::string MoeCombine(const MoeCombineArgs& args, CUstream_st* stream);

namespace ref {
// One token's sum in float64; y [rows, hidden] widened to float32.
void MoeCombine(const float* y, const int32_t* rows, const float* weights, int64_t top_k,
                int64_t hidden, double* out);
}  // namespace ref
}  // namespace quern::kernels
