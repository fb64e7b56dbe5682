#include <cuda_runtime.h>

#include "kernels/cuda/elementwise/rows_launch.h"

namespace quern::kernels {

constexpr int kSelectThreads = 256;
constexpr int kSelectUnroll = 4;  // loads of a thread that are on their way at once

// One thread block per row; a thread takes 16 bytes at a time.
__global__ void __launch_bounds__(kSelectThreads)
    SelectRowsKernel(const __grid_constant__ SelectRowsArgs args) {
  const int row = args.rows[blockIdx.x];
  float4* out = reinterpret_cast<float4*>(args.out + blockIdx.x * args.out_stride);
  const int vectors = static_cast<int>(args.width / 4);
  if (row < 0 || row >= args.x_rows) {
    const float nan = __int_as_float(0x7fffffff);
    for (int i = threadIdx.x; i < vectors; i += kSelectThreads) {
      out[i] = make_float4(nan, nan, nan, nan);
    }
    return;
  }
  const float4* x = reinterpret_cast<const float4*>(args.x + row * args.x_stride);
#pragma unroll kSelectUnroll
  for (int i = threadIdx.x; i < vectors; i += kSelectThreads) out[i] = x[i];
}

cudaError_t StartSelectRows(const SelectRowsArgs& args, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(args.count));
  config.blockDim = dim3(kSelectThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, SelectRowsKernel, args);
}

}  // namespace quern::kernels
