#include "kernels/cuda/common/convert.cuh"
#include "kernels/cuda/moe/moe_launch.h"

namespace quern::kernels {

constexpr int kCombineThreads = 256;

// A thread has 8 columns of a token: one load of 16 bytes for each slot.
template <typename T>
__global__ void __launch_bounds__(kCombineThreads)
    MoeCombineKernel(const __grid_constant__ MoeCombineArgs args) {
  const uint32_t vectors = static_cast<uint32_t>(args.hidden / 8);
  const uint32_t index = blockIdx.x * kCombineThreads + threadIdx.x;
  if (index >= vectors * static_cast<uint32_t>(args.tokens)) return;
  const int64_t token = index / vectors;
  const uint32_t column = index % vectors;
  const int top_k = static_cast<int>(args.top_k);
  const int32_t* rows = args.pair_rows + token * top_k;
  const float* weights = args.weights + token * top_k;
  float sums[8] = {};
#pragma unroll 4
  for (int slot = 0; slot < top_k; ++slot) {
    const int row = __ldg(rows + slot);
    if (row < 0) continue;
    const uint4 bits =
        __ldg(reinterpret_cast<const uint4*>(static_cast<const T*>(args.y) + row * args.y_stride) +
              column);
    const float weight = __ldg(weights + slot);
    const float2 y[4] = {WidenPair<T>(bits.x), WidenPair<T>(bits.y), WidenPair<T>(bits.z),
                         WidenPair<T>(bits.w)};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sums[2 * i] = __fmaf_rn(weight, y[i].x, sums[2 * i]);
      sums[2 * i + 1] = __fmaf_rn(weight, y[i].y, sums[2 * i + 1]);
    }
  }
  reinterpret_cast<uint4*>(static_cast<T*>(args.out) + token * args.out_stride)[column] =
      make_uint4(NarrowPair<T>(sums[0], sums[1]), NarrowPair<T>(sums[2], sums[3]),
                 NarrowPair<T>(sums[4], sums[5]), NarrowPair<T>(sums[6], sums[7]));
}

cudaError_t StartMoeCombine(const MoeCombineArgs& args, cudaStream_t stream) {
  const int64_t vectors = args.tokens * (args.hidden / 8);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>((vectors + kCombineThreads - 1) / kCombineThreads));
  config.blockDim = dim3(kCombineThreads);
  config.stream = stream;
  return args.type == ActivationType::kF16
             ? cudaLaunchKernelEx(&config, MoeCombineKernel<__half>, args)
             : cudaLaunchKernelEx(&config, MoeCombineKernel<__nv_bfloat16>, args);
}

}  // namespace quern::kernels
