#include "kernels/cuda/common/convert.cuh"
#include "kernels/cuda/elementwise/embedding_gather_launch.h"

namespace quern::kernels {

constexpr int kGatherThreads = 256;
constexpr int kGatherUnroll = 4;  // loads of a thread that are on their way at once

// One thread block per token; a thread takes 4 elements at a time: loads of 8 bytes and stores of
// 16, each of a warp's without gaps.
template <typename T>
__global__ void __launch_bounds__(kGatherThreads)
    EmbeddingGatherKernel(const __grid_constant__ EmbeddingGatherArgs args) {
  const int64_t token = blockIdx.x;
  const int64_t at = int64_t{args.ids[token]} - args.first;
  float4* out = reinterpret_cast<float4*>(args.out + token * args.out_stride);
  const int vectors = static_cast<int>(args.hidden / 4);
  if (at < 0 || at >= args.vocab) {
    for (int i = threadIdx.x; i < vectors; i += kGatherThreads) {
      out[i] = make_float4(args.absent, args.absent, args.absent, args.absent);
    }
    return;
  }
  const uint2* row =
      reinterpret_cast<const uint2*>(static_cast<const T*>(args.table) + at * args.table_stride);
#pragma unroll kGatherUnroll
  for (int i = threadIdx.x; i < vectors; i += kGatherThreads) {
    const float4 v = WidenFour<T>(__ldg(row + i));
    out[i] = make_float4(v.x * args.scale, v.y * args.scale, v.z * args.scale, v.w * args.scale);
  }
}

cudaError_t StartEmbeddingGather(const EmbeddingGatherArgs& args, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(args.tokens));
  config.blockDim = dim3(kGatherThreads);
  config.stream = stream;
  return args.type == ActivationType::kF16
             ? cudaLaunchKernelEx(&config, EmbeddingGatherKernel<__half>, args)
             : cudaLaunchKernelEx(&config, EmbeddingGatherKernel<__nv_bfloat16>, args);
}

}  // namespace quern::kernels
