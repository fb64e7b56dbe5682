#pragma once

#include "kernels/cuda/attention/attention_work.cuh"
#include "kernels/cuda/common/convert.cuh"
#include "kernels/cuda/common/words.cuh"

// Adds up what the splits of a context have (Flash-Decoding's reduction), in their order: a warp
// for each row, whose lanes have neighbouring elements.
namespace quern::kernels {

inline constexpr int kCombineWarps = 4;

template <typename T, int kHeadDim>
__global__ void __launch_bounds__(kCombineWarps * 32)
    CombineSplitsKernel(const __grid_constant__ DeviceAttentionLaunch launch) {
  constexpr int kOwn = kHeadDim / 32;
  constexpr int kLoad = kOwn < 4 ? kOwn : 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int kv_head = static_cast<int>(blockIdx.y);
  AttentionWork work;
  if (!work.Find(launch, kDecodeRows, static_cast<int>(blockIdx.x))) return;
  if (work.splits == 1) return;  // the row tile's only thread block has written it
  const int64_t parts = work.Parts(launch, kv_head);
  for (int row = static_cast<int>(threadIdx.x) / 32; row < work.rows; row += kCombineWarps) {
    const auto stats = [&](int split) {
      return reinterpret_cast<const float2*>(launch.stats)[(parts + split) * kDecodeRows + row];
    };
    float largest = -INFINITY;
    for (int split = 0; split < work.splits; ++split) largest = fmaxf(largest, stats(split).x);
    const float base = largest == -INFINITY ? 0 : largest;
    float weights = 0;
    float sums[kOwn] = {};
#pragma unroll 4
    for (int split = 0; split < work.splits; ++split) {
      const float2 stat = stats(split);
      const float factor = exp2f(stat.x - base);
      uint32_t words[kOwn];
      const float* part =
          launch.parts + ((parts + split) * kDecodeRows + row) * kHeadDim + lane * kOwn;
#pragma unroll
      for (int i = 0; i < kOwn; i += kLoad) LoadBytes<kLoad * 4>(part + i, words + i);
      weights = fmaf(factor, stat.y, weights);
#pragma unroll
      for (int i = 0; i < kOwn; ++i) sums[i] = fmaf(factor, __uint_as_float(words[i]), sums[i]);
    }
    float scale = weights > 0 ? 1.0f / weights : weights;
    if (launch.v_head_scales != nullptr) scale *= launch.v_head_scales[kv_head];
    uint16_t* out = launch.out + work.Query(launch, row) * launch.out_stride +
                    work.Head(launch, kv_head, row) * kHeadDim + lane * kOwn;
    uint32_t pairs[kOwn / 2];
#pragma unroll
    for (int i = 0; i < kOwn / 2; ++i) {
      pairs[i] = NarrowPair<T>(sums[2 * i] * scale, sums[2 * i + 1] * scale);
    }
    StoreBytes<kOwn * 2>(out, pairs);
  }
}

template <typename T>
cudaError_t StartCombineSplits(int head_dim, const DeviceAttentionLaunch& launch,
                               cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(launch.sequences * launch.row_tiles),
                        static_cast<unsigned>(launch.kv_heads));
  config.blockDim = dim3(kCombineWarps * 32);
  config.stream = stream;
  switch (head_dim) {
    case 64:
      return cudaLaunchKernelEx(&config, CombineSplitsKernel<T, 64>, launch);
    case 128:
      return cudaLaunchKernelEx(&config, CombineSplitsKernel<T, 128>, launch);
    default:
      return cudaLaunchKernelEx(&config, CombineSplitsKernel<T, 256>, launch);
  }
}

}  // namespace quern::kernels
