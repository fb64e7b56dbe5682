#pragma once

#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/common/row_codes.cuh"
#include "kernels/cuda/common/words.cuh"

// Rows that something makes (Source), quantised: QuantizeRows' and the gates' kernel.
namespace quern::kernels {

inline constexpr int kQuantizeThreads = 1024;  // at most

// Source has kElements (4 or 8) of a vector, and Load(token, vector, float4 (&)[kElements / 4]).
template <typename Source>
struct QuantizeRowsLaunch {
  Source source;
  int32_t vectors;  // of a row
  uint8_t* y;
  int64_t y_stride;
  float* y_scale;
};

// One thread block per token. A thread keeps kHeld elements, in vectors that are blockDim.x vectors
// apart, in registers, so that each byte is read and written once, and a warp's without gaps.
template <typename Source, RowOutput kOutput, int kHeld>
__global__ void __launch_bounds__(kQuantizeThreads)
    QuantizeRowsKernel(const __grid_constant__ QuantizeRowsLaunch<Source> launch) {
  constexpr int kFours = Source::kElements / 4;
  constexpr int kVectors = kHeld / Source::kElements;
  __shared__ uint32_t parts[32];
  const int64_t token = blockIdx.x;
  const auto place = [](int i) { return static_cast<int>(threadIdx.x + i * blockDim.x); };
  float4 v[kVectors][kFours];
  uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
#pragma unroll
    for (int four = 0; four < kFours; ++four) v[i][four] = make_float4(0, 0, 0, 0);
    if (place(i) < launch.vectors) launch.source.Load(token, place(i), v[i]);
#pragma unroll
    for (int four = 0; four < kFours; ++four) largest = LargestBits(largest, v[i][four]);
  }
  const RowCodes<kOutput> codes(BlockMax(largest, parts));
  if (threadIdx.x == 0) launch.y_scale[token] = codes.scale;
  uint8_t* y = launch.y + token * launch.y_stride;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    if (place(i) >= launch.vectors) continue;
    uint32_t words[kFours];
#pragma unroll
    for (int four = 0; four < kFours; ++four) words[four] = codes.Four(v[i][four]);
    StoreBytes<Source::kElements>(y + place(i) * Source::kElements, words);
  }
}

// Rows of `width`, a multiple of 8 up to kMaxQuantizedWidth.
template <RowOutput kOutput, typename Source>
cudaError_t StartQuantizeRows(const Source& source, int64_t tokens, int64_t width, void* y,
                              int64_t y_stride, float* y_scale, cudaStream_t stream) {
  // Few elements a thread have a row's loads on their way at once; 32 of 1024 threads hold it all.
  const bool narrow = width <= 8 * kQuantizeThreads;
  const int64_t threads = (width + (narrow ? 8 : 32) - 1) / (narrow ? 8 : 32);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(tokens));
  config.blockDim = dim3(static_cast<unsigned>((threads + 31) / 32 * 32));
  config.stream = stream;
  const QuantizeRowsLaunch<Source> launch{source, static_cast<int32_t>(width / Source::kElements),
                                          static_cast<uint8_t*>(y), y_stride, y_scale};
  return cudaLaunchKernelEx(
      &config,
      narrow ? QuantizeRowsKernel<Source, kOutput, 8> : QuantizeRowsKernel<Source, kOutput, 32>,
      launch);
}

}  // namespace quern::kernels
