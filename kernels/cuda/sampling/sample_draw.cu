#include "kernels/cuda/sampling/philox.cuh"
#include "kernels/cuda/sampling/sampling_cut.cuh"

namespace quern::kernels {

// The cut of a row, and under it the sums of each tile: the weight of the ranks before the cut's,
// and how many tokens have the cut's own rank.
__global__ void __launch_bounds__(kSampleThreads)
    SampleTilesKernel(const __grid_constant__ SampleLaunch launch) {
  __shared__ FindScratch scratch[1];
  __shared__ Sum parts[3][32];
  const int row = blockIdx.y;
  const SampleRow params = launch.params[row];
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

struct PickScratch {
  Sum parts[4][32];
  int tile;
  Sum left;         // of the target, within the tile
  Sum ties_before;  // the tile
};

// The weight of `count` tokens with the cut's rank that come after `before` others.
__device__ __forceinline__ Sum TiesWeight(const RankCut& cut, Sum before, Sum count) {
  const Sum left = before < cut.ties ? cut.ties - before : 0;
  return min(count, left) * (left > 0 ? WeightOf(cut.last) : 0);
}

// The tile in which the running sum of weights first exceeds `uniform` / 2^64 of the row's sum, and
// how far into it.
__device__ void PickTile(const SampleLaunch& launch, int row, const RankCut& cut, Sum uniform,
                         PickScratch& scratch) {
  constexpr int kPer = kMaxSampleTiles / kSampleThreads;
  const int64_t tiles = static_cast<int64_t>(row) * launch.tiles;
  const int own = static_cast<int>(threadIdx.x) * kPer;
  Sum ties[kPer];
  Sum weights[kPer];
  Sum sum = 0;
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const bool inside = own + i < launch.tiles;
    ties[i] = inside ? launch.tile_ties[tiles + own + i] : 0;
    weights[i] = inside ? launch.tile_weights[tiles + own + i] : 0;
    sum += ties[i];
  }
  Sum total;
  Sum ties_before = BlockScan(sum, scratch.parts[0], &total);
  sum = 0;
  Sum before_tile[kPer];
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    before_tile[i] = ties_before;
    weights[i] += TiesWeight(cut, ties_before, ties[i]);
    ties_before += ties[i];
    sum += weights[i];
  }
  Sum before = BlockScan(sum, scratch.parts[1], &total);
  const Sum target = __umul64hi(uniform, total);  // the sum must exceed it
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    if (before <= target && target < before + weights[i]) {
      scratch.tile = own + i;
      scratch.left = target - before;
      scratch.ties_before = before_tile[i];
    }
    before += weights[i];
  }
  __syncthreads();
}

// The token of that tile; a thread has 8 tokens side by side.
__device__ void PickToken(const SampleLaunch& launch, int row, const RowScale& scale,
                          const RankCut& cut, PickScratch& scratch) {
  constexpr int kPer = kSampleTile / kSampleThreads;
  const int own = scratch.tile * kSampleTile + static_cast<int>(threadIdx.x) * kPer;
  uint32_t ranks[kPer];
  Sum ties = 0;
#pragma unroll
  for (int i = 0; i < kPer; i += 4) {
    const float4 v = LoadLogits(launch, row, own + i);
    ranks[i] = scale.Rank(v.x);
    ranks[i + 1] = scale.Rank(v.y);
    ranks[i + 2] = scale.Rank(v.z);
    ranks[i + 3] = scale.Rank(v.w);
  }
#pragma unroll
  for (int i = 0; i < kPer; ++i) ties += ranks[i] == cut.last ? 1 : 0;
  Sum total;
  Sum ties_before = BlockScan(ties, scratch.parts[2], &total) + scratch.ties_before;
  Sum weights[kPer];
  Sum sum = 0;
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const bool tie = ranks[i] == cut.last;
    weights[i] = ranks[i] < cut.last ? WeightOf(ranks[i])
                 : tie               ? TiesWeight(cut, ties_before, 1)
                                     : 0;
    ties_before += tie ? 1 : 0;
    sum += weights[i];
  }
  Sum before = BlockScan(sum, scratch.parts[3], &total);
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    if (before <= scratch.left && scratch.left < before + weights[i]) launch.ids[row] = own + i;
    before += weights[i];
  }
}

// One thread block per row.
__global__ void __launch_bounds__(kSampleThreads)
    SampleDrawKernel(const __grid_constant__ SampleLaunch launch) {
  __shared__ PickScratch scratch[1];
  __shared__ Sum parts[32];
  const int row = blockIdx.x;
  const SampleRow params = launch.params[row];
  const Sum row_max = RowMax(launch, row, parts);
  if (!IsUsable(row_max) || IsGreedy(launch, params)) {
    if (threadIdx.x == 0) {
      launch.ids[row] = IsUsable(row_max) ? static_cast<int>(~static_cast<uint32_t>(row_max)) : -1;
    }
    return;
  }
  const RankCut cut = launch.cuts[row];
  PickTile(launch, row, cut, UniformBits(params.seed, params.position, 0), scratch[0]);
  PickToken(launch, row, RowScale(row_max, params), cut, scratch[0]);
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
