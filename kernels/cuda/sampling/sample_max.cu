#include "kernels/cuda/sampling/sampling_row.cuh"

namespace quern::kernels {

__device__ __forceinline__ Sum Candidate(float logit, int id) {
  const bool bad = logit != logit || logit == __int_as_float(0x7f800000);
  return static_cast<Sum>(bad ? kBadLogit : SortKey(logit)) << 32 | ~static_cast<uint32_t>(id);
}

__global__ void __launch_bounds__(kSampleThreads)
    SampleMaxKernel(const __grid_constant__ SampleLaunch launch, bool clear) {
  __shared__ Sum parts[32];
  const int row = blockIdx.y;
  Sum best = 0;
#pragma unroll 2
  for (int tile = blockIdx.x; tile < launch.tiles; tile += launch.blocks) {
#pragma unroll
    for (int i = 0; i < kSampleTile; i += kSampleThreads * 4) {
      const int first = tile * kSampleTile + i + static_cast<int>(threadIdx.x) * 4;
      const float4 v = LoadLogits(launch, row, first);
      best = max(max(max(best, Candidate(v.x, first)), Candidate(v.y, first + 1)),
                 max(Candidate(v.z, first + 2), Candidate(v.w, first + 3)));
    }
  }
  best = BlockMax(best, parts);
  if (threadIdx.x == 0) {
    launch.maxima[static_cast<int64_t>(row) * launch.blocks + blockIdx.x] = best;
  }
  if (!clear) return;
  const int64_t bins = static_cast<int64_t>(row) * kBinsOfAll;
  for (int bin = blockIdx.x * kSampleThreads + threadIdx.x; bin < kBinsOfAll;
       bin += launch.blocks * kSampleThreads) {
    launch.bin_weights[bins + bin] = 0;
    launch.bin_counts[bins + bin] = 0;
  }
}

cudaError_t StartSampleMax(const SampleLaunch& launch, bool clear, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(launch.blocks), static_cast<unsigned>(launch.rows));
  config.blockDim = dim3(kSampleThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, SampleMaxKernel, launch, clear);
}

}  // namespace quern::kernels
