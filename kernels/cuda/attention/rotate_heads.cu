#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/attention/head_registers.cuh"
#include "kernels/cuda/attention/rotate_heads_launch.h"

namespace quern::kernels {
namespace {

template <typename T, int kHeadDim>
__global__ void __launch_bounds__(kRotateHeadsWarps * 32)
    RotateHeadsKernel(const __grid_constant__ RotateHeadsArgs args) {
  const int head_blocks = (args.heads + kRotateHeadsWarps - 1) / kRotateHeadsWarps;
  const int64_t token = blockIdx.x / head_blocks;
  const int head = static_cast<int>(blockIdx.x) % head_blocks * kRotateHeadsWarps +
                   static_cast<int>(threadIdx.x) / 32;
  if (head >= args.heads) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float x[kHeadDim / 32];
  LoadHead<T>(static_cast<const uint16_t*>(args.x) + token * args.x_stride + head * kHeadDim, lane,
              x);
  RotateHead(lane, x);
  StoreHead<T>(x, lane,
               static_cast<uint16_t*>(args.out) + token * args.out_stride + head * kHeadDim);
}

template <typename T>
cudaError_t StartRotateHeadsOf(const RotateHeadsArgs& args, cudaStream_t stream) {
  const int64_t head_blocks = (args.heads + kRotateHeadsWarps - 1) / kRotateHeadsWarps;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(args.tokens * head_blocks));
  config.blockDim = dim3(kRotateHeadsWarps * 32);
  config.stream = stream;
  switch (args.head_dim) {
    case 64:
      return cudaLaunchKernelEx(&config, RotateHeadsKernel<T, 64>, args);
    case 128:
      return cudaLaunchKernelEx(&config, RotateHeadsKernel<T, 128>, args);
    default:
      return cudaLaunchKernelEx(&config, RotateHeadsKernel<T, 256>, args);
  }
}

}  // namespace

cudaError_t StartRotateHeads(const RotateHeadsArgs& args, cudaStream_t stream) {
  return args.type == ActivationType::kF16 ? StartRotateHeadsOf<__half>(args, stream)
                                           : StartRotateHeadsOf<__nv_bfloat16>(args, stream);
}

}  // namespace quern::kernels
