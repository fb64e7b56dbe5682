#pragma once

#include <cstdint>
#include <string>

#include "quern/kernels/activation_type.h"
#include "quern/kernels/row_output.h"

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// Rows of 16 bits, attention's results say, as codes with a scale per token (row_output.h): the x
// of W8A8MatMul. On an NVIDIA GPU of compute capability 8.0 or later; all pointers are to the
// current device's memory, and all strides are in elements.
struct QuantizeRowsArgs {
  ActivationType type;  // of x
  int64_t tokens;       // from 0 (nothing is done) to 2^31 - 1
  int64_t width;        // a multiple of 8, from 8 to kMaxQuantizedWidth
  const void* x;        // [tokens, width], 16-byte aligned
  int64_t x_stride;     // a multiple of 8, at least width
  RowOutput output;     // kInt8 or kE4m3
  void* y;              // [tokens, width] codes, 8-byte aligned; not x's memory
  int64_t y_stride;     // a multiple of 8, at least width
  float* y_scale;       // [tokens]
};

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. Each token is one thread block's, and reads its row once. May be called
// by several threads, and captured into a graph.
[[nodiscard]] std::string QuantizeRows(const QuantizeRowsArgs& args, CUstream_st* stream);

}  // namespace quern::kernels
