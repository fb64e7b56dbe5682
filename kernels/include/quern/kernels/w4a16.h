#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "quern/kernels/activation_type.h"
#include "quern/kernels/w4_weights.h"

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// y[r, c] = sum over k of x[r, k] * w[c, k] on an NVIDIA GPU of compute capability 8.0 or later:
// 4-bit weights, 16-bit activations, float32 sums. All pointers are to the current device's memory.
struct W4A16Args {
  W4Matrix weights;       // codes and scales on the device
  ActivationType type;    // of x and y
  const void* x;          // [batch, weights.cols], 16-byte aligned
  int64_t x_stride;       // elements from row to row: a multiple of 8, at least weights.cols
  void* y;                // [batch, weights.rows]; rounded to nearest, beyond the type's range: inf
  int64_t y_stride;       // at least weights.rows
  int64_t batch;          // rows of x, from 1
  void* workspace;        // W4A16WorkspaceBytes; one per stream that runs products
  size_t workspace_size;  // bytes
  // Lets the weights' first loads begin before the stream's previous kernel has ended (compute
  // capability 9.0; without effect before). Then no kernel may write the weights since the last one
  // that was launched without overlap, nor that one.
  bool overlap_previous = false;
  // For tests and tuning: one of kW4Variants (-1: the best for the batch), and how many thread
  // blocks share the work (0: as many as are best).
  int variant = -1;
  int thread_blocks = 0;
};

// Bytes of workspace with which every product on the current device can be done; 0 if there is no
// usable device. Clear it once (cudaMemset) before its first use; each product leaves it as the
// next one needs it, of whatever size that is.
size_t W4A16WorkspaceBytes();

// Starts the product on `stream` of the current device and returns "", or what is wrong; arguments
// that are wrong start nothing. The result does not depend on timing: partial sums are added in a
// fixed order. Batches above 64 are done 64 at a time. May be called by several threads, with a
// stream and a workspace each, and captured into a graph (after a first call outside of one with
// the same format, type, shape and batch, which loads the kernels).
//
// The method is Marlin's (Frantar et al. 2024: weights laid out offline for mma.sync m16n8k16,
// widened in registers behind a cp.async pipeline) with three differences: x is the tensor cores' B
// operand, so that the smallest batch is 8 and not 16; scales are applied to float32 sums, so that
// weights are not rounded to 16 bits; and the work is cut by stream-K (Osama et al. 2023) with a
// fixed order of sums.
[[nodiscard]] std::string W4A16MatMul(const W4A16Args& args, CUstream_st* stream);

}  // namespace quern::kernels
