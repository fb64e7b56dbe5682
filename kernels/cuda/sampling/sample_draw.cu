#include "kernels/cuda/sampling/philox.cuh"
#include "kernels/cuda/sampling/sampling_cut.cuh"
#include "kernels/cuda/sampling/sampling_pick.cuh"

namespace quern::kernels {

// The cut of a row, and under it the sums of each tile: the weight of the ranks before the cut's,
// and how many tokens have the cut's own rank.
__global__ void __launch_bounds__(kSampleThreads)
    SampleTilesKernel(const __grid_constant__ SampleLaunch launch) {
  __shared__ FindScratch scratch[1];
  __shared__ Sum parts[3][32];
  const int row = blockIdx.y;
  const SampleRow params = ParamsOf(launch, row);
  if (IsGreedy(launch, params)) return;
  const Sum row_max = RowMax(launch, row, parts[0]);
  if (!IsUsable(row_max)) return;
  const RowScale scale(row_max, params);
  const RankCut cut = HasTopP(launch, params)   ? TopPCut(launch, row, scratch[0])
                      : HasTopK(launch, params) ? TopKCut(launch, row, scratch[0])
                                                : RankCut{kNoRank, 0, 0};
  if (blockIdx.x == 0 && threadIdx.x == 0) launch.cuts[row] = cut;
  for (int tile = blockIdx.x; tile < launch.tiles; tile += launch.blocks) {
    Sum weight = 0;
    Sum ties = 0;
    const auto add = [&](float logit) {
      const uint32_t rank = scale.Rank(logit);
      if (rank < cut.last) weight += WeightOf(rank);
      if (rank == cut.last) ++ties;
    };
#pragma unroll
    for (int i = 0; i < kSampleTile; i += kSampleThreads * 4) {
      const float4 v =
          LoadLogits(launch, row, tile * kSampleTile + i + static_cast<int>(threadIdx.x) * 4);
      add(v.x);
      add(v.y);
      add(v.z);
      add(v.w);
    }
    Sum tile_weight;
    Sum tile_ties;
    BlockScan(weight, parts[1], &tile_weight);
    BlockScan(ties, parts[2], &tile_ties);
    if (threadIdx.x == 0) {
      const int64_t at = static_cast<int64_t>(row) * launch.tiles + tile;
      launch.tile_weights[at] = tile_weight;
      launch.tile_ties[at] = static_cast<uint32_t>(tile_ties);
    }
    __syncthreads();  // the parts are free again
  }
}

// One thread block per row.
__global__ void __launch_bounds__(kSampleThreads)
    SampleDrawKernel(const __grid_constant__ SampleLaunch launch) {
  __shared__ PickScratch scratch[1];
  __shared__ Sum parts[32];
  const int row = blockIdx.x;
  const SampleRow params = ParamsOf(launch, row);
  const Sum row_max = RowMax(launch, row, parts);
  if (!IsUsable(row_max) || IsGreedy(launch, params)) {
    if (threadIdx.x == 0) {
      launch.ids[row] = IsUsable(row_max) ? static_cast<int>(~static_cast<uint32_t>(row_max)) : -1;
    }
    return;
  }
  PickToken(launch, row, params, UniformBits(params.seed, params.position, 0), scratch[0],
            launch.ids + row);
}

cudaError_t StartSampleTiles(const SampleLaunch& launch, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(launch.blocks), static_cast<unsigned>(launch.rows));
  config.blockDim = dim3(kSampleThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, SampleTilesKernel, launch);
}

cudaError_t StartSampleDraw(const SampleLaunch& launch, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(launch.rows));
  config.blockDim = dim3(kSampleThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, SampleDrawKernel, launch);
}

}  // namespace quern::kernels
