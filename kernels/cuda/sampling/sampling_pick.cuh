#pragma once

#include "kernels/cuda/sampling/sampling_row.cuh"

// Finding the token at which a running sum of weights exceeds what was drawn. All threads of a
// block, kSampleThreads, call these functions.
namespace quern::kernels {

inline constexpr int kTokensPerThread = kSampleTile / kSampleThreads;  // side by side
inline constexpr int kTilesPerThread = kMaxSampleTiles / kSampleThreads;

struct PickScratch {
  Sum parts[6][32];  // each is used once
  int place;
  Sum left;  // of the target, at the place
};

// The first place whose weight lets the running sum exceed `target`; a thread has the weights of
// the places from kPer * its number on. Nothing is found where their sum does not exceed it.
template <int kPer>
__device__ __forceinline__ void FindExceeding(const Sum (&weights)[kPer], Sum before, Sum target,
                                              PickScratch& scratch) {
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    if (before <= target && target < before + weights[i]) {
      scratch.place = static_cast<int>(threadIdx.x) * kPer + i;
      scratch.left = target - before;
    }
    before += weights[i];
  }
  __syncthreads();
}

// The weight of `count` tokens with the cut's rank that come after `before` others.
__device__ __forceinline__ Sum TiesWeight(const RankCut& cut, Sum before, Sum count) {
  const Sum left = before < cut.ties ? cut.ties - before : 0;
  return left > 0 ? min(count, left) * WeightOf(cut.last) : 0;
}

// Weights and ties of this thread's tiles of a row.
__device__ __forceinline__ void LoadTiles(const SampleLaunch& launch, int row,
                                          Sum (&weights)[kTilesPerThread],
                                          Sum (&ties)[kTilesPerThread]) {
  const int64_t tiles = static_cast<int64_t>(row) * launch.tiles;
#pragma unroll
  for (int i = 0; i < kTilesPerThread; ++i) {
    const int tile = static_cast<int>(threadIdx.x) * kTilesPerThread + i;
    weights[i] = tile < launch.tiles ? launch.tile_weights[tiles + tile] : 0;
    ties[i] = tile < launch.tiles ? launch.tile_ties[tiles + tile] : 0;
  }
}

// The tokens with the cut's rank in the tiles before `tile`.
__device__ __forceinline__ Sum TiesBefore(const SampleLaunch& launch, int row, int tile,
                                          Sum* parts) {
  Sum ties = 0;
  for (int i = threadIdx.x; i < tile; i += kSampleThreads) {
    ties += launch.tile_ties[static_cast<int64_t>(row) * launch.tiles + i];
  }
  Sum total;
  BlockScan(ties, parts, &total);
  return total;
}

// The kept weights of a tile's tokens: of those from tile * kSampleTile + kTokensPerThread * the
// thread's number on.
__device__ __forceinline__ void TileWeights(const SampleLaunch& launch, int row,
                                            const RowScale& scale, const RankCut& cut, int tile,
                                            Sum ties_before, Sum* parts,
                                            Sum (&weights)[kTokensPerThread]) {
  const int own = tile * kSampleTile + static_cast<int>(threadIdx.x) * kTokensPerThread;
  uint32_t ranks[kTokensPerThread];
  Sum ties = 0;
#pragma unroll
  for (int i = 0; i < kTokensPerThread; i += 4) {
    const float4 v = LoadLogits(launch, row, own + i);
    ranks[i] = scale.Rank(v.x);
    ranks[i + 1] = scale.Rank(v.y);
    ranks[i + 2] = scale.Rank(v.z);
    ranks[i + 3] = scale.Rank(v.w);
  }
#pragma unroll
  for (int i = 0; i < kTokensPerThread; ++i) ties += ranks[i] == cut.last ? 1 : 0;
  Sum total;
  ties_before += BlockScan(ties, parts, &total);
#pragma unroll
  for (int i = 0; i < kTokensPerThread; ++i) {
    const bool tie = ranks[i] == cut.last;
    weights[i] = ranks[i] < cut.last ? WeightOf(ranks[i])
                 : tie               ? TiesWeight(cut, ties_before, 1)
                                     : 0;
    ties_before += tie ? 1 : 0;
  }
}

// Draws a token of a row that has one and is not greedy, into *id: the first at which the running
// sum of weights exceeds `uniform` / 2^64 of all.
__device__ inline void PickToken(const SampleLaunch& launch, int row, const SampleRow& params,
                                 Sum uniform, PickScratch& scratch, int32_t* id) {
  const RankCut cut = launch.cuts[row];
  Sum weights[kTilesPerThread];
  Sum ties[kTilesPerThread];
  LoadTiles(launch, row, weights, ties);
  Sum sum = 0;
  Sum total;
#pragma unroll
  for (int i = 0; i < kTilesPerThread; ++i) sum += ties[i];
  Sum ties_before = BlockScan(sum, scratch.parts[0], &total);
  sum = 0;
#pragma unroll
  for (int i = 0; i < kTilesPerThread; ++i) {
    weights[i] += TiesWeight(cut, ties_before, ties[i]);
    ties_before += ties[i];
    sum += weights[i];
  }
  Sum before = BlockScan(sum, scratch.parts[1], &total);
  FindExceeding(weights, before, __umul64hi(uniform, total), scratch);
  const int tile = scratch.place;
  const Sum left = scratch.left;

  ties_before = TiesBefore(launch, row, tile, scratch.parts[2]);
  const Sum row_max = RowMax(launch, row, scratch.parts[3]);
  Sum token_weights[kTokensPerThread];
  TileWeights(launch, row, RowScale(row_max, params), cut, tile, ties_before, scratch.parts[4],
              token_weights);
  sum = 0;
#pragma unroll
  for (int i = 0; i < kTokensPerThread; ++i) sum += token_weights[i];
  before = BlockScan(sum, scratch.parts[5], &total);
  FindExceeding(token_weights, before, left, scratch);
  if (threadIdx.x == 0) *id = tile * kSampleTile + scratch.place;
}

}  // namespace quern::kernels
