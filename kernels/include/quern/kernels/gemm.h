#pragma once

#include <cstdint>
#include <string>

#include "quern/kernels/w4a16.h"  // ActivationType

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// y[r, c] = sum over k of x[r, k] * w[c, k] on an NVIDIA GPU of compute capability 8.0 or later,
// all of one 16-bit type (y may be float32), with float32 sums. All pointers are to the current
// device's memory.
struct GemmArgs {
  ActivationType type;
  const void* w;     // [rows, cols], 16-byte aligned
  int64_t w_stride;  // elements from row to row: a multiple of 8, at least cols
  int64_t rows;      // from 1, below 2^29, as are cols
  int64_t cols;      // a multiple of 8
  const void* x;     // [batch, cols], 16-byte aligned
  int64_t x_stride;  // a multiple of 8, at least cols
  void* y;           // [batch, rows]; rounded to nearest, beyond the type's range: inf
  int64_t y_stride;  // at least rows
  int64_t batch;     // from 1
  // Lets the weights' first loads begin before the stream's previous kernel has ended (compute
  // capability 9.0; without effect before). Then no kernel may write the weights since the last one
  // that was launched without overlap, nor that one.
  bool overlap_previous = false;
  // y is float32 (4-byte aligned, y_stride in elements of it): the sums as they are, not rounded to
  // `type`. For logits.
  bool float32_y = false;
  // For tests and tuning: one of kMatMulShapes (-1: the best for the batch), and how many thread
  // blocks share the work (0: as many as the device holds at once).
  int shape = -1;
  int thread_blocks = 0;
};

// Starts the product on `stream` of the current device and returns "", or what is wrong; arguments
// that are wrong start nothing. Needs no workspace. May be called by several threads, and captured
// into a graph (after a first call outside of one with the same type and batch, which loads the
// kernel).
//
// The order of a sum depends on the number of columns alone: four slices of the columns, each 16 at
// a time, then the slices' sums. A row of x gives the same bits in whatever batch, under whatever
// timing, whatever the shape of the kernel, on every GPU whose mma.sync adds alike.
[[nodiscard]] std::string Gemm(const GemmArgs& args, CUstream_st* stream);

}  // namespace quern::kernels
