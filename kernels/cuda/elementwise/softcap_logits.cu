#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/elementwise/rows_launch.h"

namespace quern::kernels {

constexpr int kSoftcapThreads = 256;
constexpr int64_t kSoftcapMostBlocks = 4096;

__global__ void __launch_bounds__(kSoftcapThreads)
    SoftcapLogitsKernel(const __grid_constant__ SoftcapLogitsArgs args) {
  float4* y = reinterpret_cast<float4*>(args.y);
  const int64_t vectors = args.count / 4;
  const int64_t step = int64_t{gridDim.x} * kSoftcapThreads;
  for (int64_t i = int64_t{blockIdx.x} * kSoftcapThreads + threadIdx.x; i < vectors; i += step) {
    float4 v = y[i];
    v.x = args.cap * tanhf(v.x / args.cap);
    v.y = args.cap * tanhf(v.y / args.cap);
    v.z = args.cap * tanhf(v.z / args.cap);
    v.w = args.cap * tanhf(v.w / args.cap);
    y[i] = v;
  }
}

cudaError_t StartSoftcapLogits(const SoftcapLogitsArgs& args, cudaStream_t stream) {
  const int64_t blocks = (args.count / 4 + kSoftcapThreads - 1) / kSoftcapThreads;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(std::min(blocks, kSoftcapMostBlocks)));
  config.blockDim = dim3(kSoftcapThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, SoftcapLogitsKernel, args);
}

}  // namespace quern::kernels
