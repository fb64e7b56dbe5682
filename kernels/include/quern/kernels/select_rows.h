#pragma once

#include <cstdint>
#include <string>

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// out[i] = x[rows[i]]: the rows of the residual whose logits are wanted, on an NVIDIA GPU of
// compute capability 8.0 or later. All pointers are to the current device's memory. A row number
// out of range makes its row NaN.
struct SelectRowsArgs {
  const float* x;       // [x_rows, width], 16-byte aligned
  int64_t x_rows;       // from 1 to 2^31 - 1
  int64_t x_stride;     // elements from row to row: a multiple of 4, at least width
  const int32_t* rows;  // [count]
  int64_t count;        // from 0 (nothing is done) to 2^31 - 1
  int64_t width;        // a multiple of 4, from 4 to 2^20
  float* out;           // [count, width], 16-byte aligned; not x's memory
  int64_t out_stride;   // a multiple of 4, at least width
};

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. May be called by several threads, and captured into a graph.
[[nodiscard]] std::string SelectRows(const SelectRowsArgs& args, CUstream_st* stream);

}  // namespace quern::kernels
