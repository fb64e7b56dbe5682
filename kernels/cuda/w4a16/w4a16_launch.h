#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/w4a16/w4a16_plan.h"
#include "quern/kernels/w4_weights.h"

namespace quern::kernels {

// What the kernel is told; W4A16MatMul's arguments, checked, and their plan.
struct W4A16Launch {
  const uint8_t* codes;
  const uint8_t* scales;
  const uint16_t* x;
  uint16_t* y;
  float4* workspace;
  int32_t* counters;
  int64_t x_stride;  // elements
  int64_t y_stride;
  int32_t batch;  // rows of x, at most 8 batch_tiles
  int32_t rows;   // of the weights
  int32_t cols;
  int32_t row_tiles;
  int32_t col_tiles;
  int32_t records;  // of scales, per row tile
  W4Plan plan;
};

// Thread blocks of the variant that one multiprocessor of the current device holds; the first call
// for a device also allows the variant its shared memory.
template <typename T, W4Format kFormat>
cudaError_t W4A16BlocksPerSm(int variant, int* blocks);

// Starts the variant's kernel. With `overlap` it may begin before the stream's grid before it ends.
template <typename T, W4Format kFormat>
cudaError_t StartW4A16(int variant, const W4A16Launch& launch, bool overlap, cudaStream_t stream);

}  // namespace quern::kernels
