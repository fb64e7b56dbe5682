#pragma once

#include <cstdint>
#include <string>

#include "quern/kernels/w4a16.h"  // ActivationType

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

enum class EightBitType {
  kInt8,  // signed; compute capability 8.0 and later
  kE4m3,  // FP8 (OCP OFP8: 4 bits of exponent, 3 of mantissa, no infinities); 8.9 and later
};

// y[r, c] = x_scales[r] * w_scales[c] * (sum over k of x[r, k] * w[c, k]) on an NVIDIA GPU: weights
// and activations of 8 bits with a scale for each row of either. All pointers are to the current
// device's memory.
struct W8A8Args {
  EightBitType operands;  // of w and x
  ActivationType type;    // of y without float32_y
  const void* w;          // [rows, cols], 16-byte aligned
  int64_t w_stride;       // bytes from row to row: a multiple of 16, at least cols
  const float* w_scales;  // [rows]
  int64_t rows;           // from 1, below 2^29
  int64_t cols;           // a multiple of 16, below 2^17: int32 holds every sum of int8
  const void* x;          // [batch, cols], 16-byte aligned
  int64_t x_stride;       // a multiple of 16, at least cols
  const float* x_scales;  // [batch]
  void* y;                // [batch, rows]; rounded to nearest, beyond the type's range: inf
  int64_t y_stride;       // at least rows
  int64_t batch;          // from 1
  // Lets the weights' first loads begin before the stream's previous kernel has ended (compute
  // capability 9.0; without effect before). Then no kernel may write the weights since the last one
  // that was launched without overlap, nor that one.
  bool overlap_previous = false;
  // y is float32 (4-byte aligned, y_stride in elements of it): the products as they are, not
  // rounded to `type`. For logits.
  bool float32_y = false;
  // For tests and tuning: one of kMatMulShapes (-1: the best for the batch), and how many thread
  // blocks share the work (0: as many as the device holds at once).
  int shape = -1;
  int thread_blocks = 0;
};

// Starts the product on `stream` of the current device and returns "", or what is wrong; arguments
// that are wrong start nothing. Needs no workspace. May be called by several threads, and captured
// into a graph (after a first call outside of one with the same types and batch, which loads the
// kernel).
//
// Sums of int8 are exact. Those of E4M3 are: tensor cores keep fewer than float32's bits of such
// sums (about 14 on Hopper: DeepSeek-V3 technical report, 2024, section 3.3.2), so each 64 columns'
// sum begins at zero and is added to a float32. Their order is Gemm's, and so is what follows from
// it.
[[nodiscard]] std::string W8A8MatMul(const W8A8Args& args, CUstream_st* stream);

}  // namespace quern::kernels
