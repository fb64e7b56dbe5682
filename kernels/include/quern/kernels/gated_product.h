#pragma once

#include <cstdint>
#include <string>

#include "quern/kernels/activation_type.h"
#include "quern/kernels/gated_activation.h"
#include "quern/kernels/row_output.h"

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// y[t, i] = act(gate[t, i]) * up[t, i] on an NVIDIA GPU of compute capability 8.0 or later,
// computed in float32 and rounded once; beyond the type's range: inf. The gates are those of the
// CPU's GatedActivationFn. All pointers are to the current device's memory; all strides are in
// elements.
struct GatedProductArgs {
  Gate gate_kind;
  ActivationType type;  // of gate and up, and of y with RowOutput::kActivation
  int64_t tokens;       // from 0 (nothing is done)
  int64_t inner;        // columns of y, a multiple of 8; tokens * inner / 4 is below 2^31

  // Two matrices [tokens, inner], or one [tokens, 2 * inner] with the gates first: up = gate +
  // inner. 16-byte aligned.
  const void* gate;
  int64_t gate_stride;  // a multiple of 8, at least inner
  const void* up;  // null: `gate` is [tokens, 2 * inner] with columns in turns, gate, up, gate,
                   // up, ... (GPT-OSS), and gate_stride at least 2 * inner
  int64_t up_stride;

  void* y;  // [tokens, inner] of `output`. Activations: 16-byte aligned; may be gate or up with the
            // same stride, but not a matrix in turns. Codes: 8-byte aligned, memory of its own
  int64_t y_stride;  // a multiple of 8, at least inner

  // Codes take an inner of at most kMaxQuantizedWidth; the float32 products are quantised, with no
  // rounding before.
  RowOutput output = RowOutput::kActivation;
  float* y_scale = nullptr;  // [tokens]; null for RowOutput::kActivation
};

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. May be called by several threads, and captured into a graph.
[[nodiscard]] std::string GatedProduct(const GatedProductArgs& args, CUstream_st* stream);

}  // namespace quern::kernels
