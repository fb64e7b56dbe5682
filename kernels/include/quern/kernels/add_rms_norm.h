#pragma once

#include <cstdint>
#include <string>

#include "quern/kernels/activation_type.h"
#include "quern/kernels/row_output.h"

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

using NormOutput = RowOutput;

// The largest hidden size: a row is held in the registers of one thread block.
inline constexpr int64_t kMaxNormHidden = 16384;

// For each token, on an NVIDIA GPU of compute capability 8.0 or later:
//   residual += x                      where there is an x and no x_weight
//   residual += rmsnorm(x) * x_weight  where there is an x_weight (Gemma's norm after a block)
//   y = rmsnorm(residual) * weight     where there is a y
// with rmsnorm(v) = v / sqrt(mean(v^2) + epsilon) (Zhang & Sennrich 2019), computed in float32 and
// rounded once, at y. All pointers are to the current device's memory; all strides are in elements.
struct AddRmsNormArgs {
  ActivationType type;  // of x, and of y with NormOutput::kActivation
  int64_t tokens;       // from 0 (nothing is done) to 2^31 - 1
  int64_t hidden;       // a multiple of 4, from 4 to kMaxNormHidden
  float epsilon;        // above 0

  float* residual;          // [tokens, hidden], 16-byte aligned; written only where there is an x
  int64_t residual_stride;  // a multiple of 4, at least hidden
  const void* x;            // [tokens, hidden], 8-byte aligned, or null: nothing is added
  int64_t x_stride;         // a multiple of 4, at least hidden
  const float* x_weight;    // [hidden], 16-byte aligned, or null; only with x

  const float* weight;  // [hidden], 16-byte aligned; null where y is
  NormOutput output;
  void* y;           // [tokens, hidden] of `output`, 8-byte aligned (may be x where output is
                     // kActivation, with its stride), or null: only the residual is changed
  int64_t y_stride;  // a multiple of 4, at least hidden
  float* y_scale;    // [tokens]; null for NormOutput::kActivation
};

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. Each token is one thread block's; sums are added in a fixed order, which
// depends on `hidden` alone: a token's result does not depend on the others. May be called by
// several threads, and captured into a graph.
[[nodiscard]] std::string AddRmsNorm(const AddRmsNormArgs& args, CUstream_st* stream);

}  // namespace quern::kernels
