#include "kernels/cuda/sampling/philox.cuh"
#include "kernels/cuda/sampling/sampling_pick.cuh"
#include "kernels/cuda/sampling/verify_launch.h"

namespace quern::kernels {

// Draw numbers: a token of a whole distribution, a draft's acceptance, a token instead of a draft.
constexpr uint32_t kAcceptanceDraw = 1;
constexpr uint32_t kInsteadDraw = 2;

// Writes a sequence's drafts up to `accepted`, and -1 after the token that follows them.
__device__ __forceinline__ void WriteAccepted(const VerifyLaunch& launch, int sequence,
                                              int accepted) {
  for (int i = threadIdx.x; i <= launch.drafts; i += kSampleThreads) {
    int32_t* token = launch.tokens + static_cast<int64_t>(sequence) * (launch.drafts + 1) + i;
    if (i < accepted) *token = launch.draft_tokens[sequence * launch.drafts + i];
    if (i > accepted) *token = -1;
  }
  if (threadIdx.x == 0) launch.accepted[sequence] = accepted;
}

// Drafts that came without chance: as far as the target's own tokens are the same.
__global__ void __launch_bounds__(kSampleThreads)
    MatchDraftsKernel(const __grid_constant__ VerifyLaunch launch) {
  const int sequence = blockIdx.x;
  const int32_t* own = launch.target.ids + static_cast<int64_t>(sequence) * (launch.drafts + 1);
  const int32_t* drafts = launch.draft_tokens + static_cast<int64_t>(sequence) * launch.drafts;
  int accepted = 0;
  while (accepted < launch.drafts && own[accepted] >= 0 && own[accepted] == drafts[accepted]) {
    ++accepted;
  }
  WriteAccepted(launch, sequence, accepted);
  if (threadIdx.x == 0) {
    launch.tokens[static_cast<int64_t>(sequence) * (launch.drafts + 1) + accepted] = own[accepted];
  }
}

// One row's distribution, as the steps of sampling left it.
struct RowDistribution {
  const SampleLaunch& launch;
  int row;
  SampleRow params;
  Sum row_max;
  RowScale scale;
  RankCut cut;

  __device__ RowDistribution(const SampleLaunch& of, int number, Sum* parts)
      : launch(of),
        row(number),
        params(ParamsOf(of, number)),
        row_max(RowMax(of, number, parts)),
        scale(row_max, params) {
    if (IsUsable(row_max) && !IsGreedy(launch, params)) cut = launch.cuts[row];
  }
  __device__ bool usable() const { return IsUsable(row_max); }
  __device__ bool greedy() const { return IsGreedy(launch, params); }
  __device__ int best() const { return static_cast<int>(~static_cast<uint32_t>(row_max)); }

  // The sum of all kept weights.
  __device__ Sum Total(Sum (*parts)[32]) const {
    Sum weights[kTilesPerThread];
    Sum ties[kTilesPerThread];
    LoadTiles(launch, row, weights, ties);
    Sum weight = 0;
    Sum tie = 0;
#pragma unroll
    for (int i = 0; i < kTilesPerThread; ++i) {
      weight += weights[i];
      tie += ties[i];
    }
    Sum all_weight;
    Sum all_ties;
    BlockScan(weight, parts[0], &all_weight);
    BlockScan(tie, parts[1], &all_ties);
    return all_weight + TiesWeight(cut, 0, all_ties);
  }

  // The weights of the tile's tokens.
  __device__ void Weights(int tile, Sum (*parts)[32], Sum (&weights)[kTokensPerThread]) const {
    const Sum ties_before = TiesBefore(launch, row, tile, parts[0]);
    TileWeights(launch, row, scale, cut, tile, ties_before, parts[1], weights);
  }
};

// A token's kept weight, for all threads.
__device__ Sum WeightOfToken(const RowDistribution& of, int token, Sum (*parts)[32], Sum* result) {
  Sum weights[kTokensPerThread];
  of.Weights(token / kSampleTile, parts, weights);
#pragma unroll
  for (int i = 0; i < kTokensPerThread; ++i) {
    if (token % kSampleTile == static_cast<int>(threadIdx.x) * kTokensPerThread + i) {
      *result = weights[i];
    }
  }
  __syncthreads();
  return *result;
}

// Each draft by itself; those after a refused one do not count.
__global__ void __launch_bounds__(kSampleThreads)
    JudgeDraftsKernel(const __grid_constant__ VerifyLaunch launch) {
  __shared__ Sum parts[10][32];
  __shared__ Sum weights[2];
  const int sequence = blockIdx.y;
  const int i = blockIdx.x;
  int32_t* fate = launch.fates + sequence * launch.drafts + i;
  const auto end = [&](DraftFate is) {
    if (threadIdx.x == 0) *fate = is;
  };
  const int token = launch.draft_tokens[sequence * launch.drafts + i];
  if (token < 0 || token >= launch.target.vocab) return end(kNoDraft);
  const RowDistribution p(launch.target, sequence * (launch.drafts + 1) + i, parts[0]);
  if (!p.usable()) return end(kRefused);
  if (p.greedy()) return end(p.best() == token ? kAccepted : kRefused);
  const RowDistribution q(launch.draft, sequence * launch.drafts + i, parts[1]);
  if (!q.usable()) return end(kRefused);
  const auto p_total = static_cast<double>(p.Total(parts + 2));
  const auto q_total = static_cast<double>(q.Total(parts + 4));
  const auto p_weight = static_cast<double>(WeightOfToken(p, token, parts + 6, weights));
  const auto q_weight = static_cast<double>(WeightOfToken(q, token, parts + 8, weights + 1));
  const double u =
      static_cast<double>(UniformBits(p.params.seed, p.params.position, kAcceptanceDraw) >> 11) *
      0x1p-53;
  end(u * (q_weight * p_total) < p_weight * q_total ? kAccepted : kRefused);
}

// How many drafts were accepted, and whether the token after them is drawn from p as it is.
struct Verdict {
  int accepted;
  bool whole;

  __device__ Verdict(const VerifyLaunch& launch, int sequence) : accepted(0), whole(true) {
    const int32_t* fates = launch.fates + sequence * launch.drafts;
    while (accepted < launch.drafts && fates[accepted] == kAccepted) ++accepted;
    if (accepted < launch.drafts) whole = fates[accepted] == kNoDraft;
  }
};

// The bits of a row's sum of weights, which is at least the likeliest token's, 2^44.
__device__ __forceinline__ int BitsOf(Sum total) {
  return 64 - __clz(static_cast<int>(total >> 32));
}

// max(0, p - q), of a tile's tokens: times both sums of weights and a power of two, with which all
// together are below 2^60. No quotients, so that nothing but products is rounded.
struct Excess {
  const RowDistribution& p;
  const RowDistribution& q;
  double p_factor;
  double q_factor;  // 0: there is no q

  __device__ Excess(const RowDistribution& of_p, const RowDistribution& of_q, Sum (*parts)[32])
      : p(of_p), q(of_q), p_factor(0), q_factor(0) {
    const Sum p_total = p.Total(parts);
    const Sum q_total = q.usable() ? q.Total(parts + 2) : Sum{1} << 44;
    const int shift = 60 - BitsOf(p_total) - BitsOf(q_total);
    const auto scale = static_cast<double>(__int_as_float((127 + shift) << 23));
    p_factor = static_cast<double>(q_total) * scale;
    if (q.usable()) q_factor = static_cast<double>(p_total) * scale;
  }
  __device__ void Weights(int tile, Sum (*parts)[32], Sum (&weights)[kTokensPerThread]) const {
    Sum q_weights[kTokensPerThread] = {};
    p.Weights(tile, parts, weights);
    if (q.usable()) q.Weights(tile, parts + 2, q_weights);
#pragma unroll
    for (int i = 0; i < kTokensPerThread; ++i) {
      if (weights[i] == 0) continue;
      const auto of_p = static_cast<Sum>(static_cast<double>(weights[i]) * p_factor);
      const auto of_q = static_cast<Sum>(static_cast<double>(q_weights[i]) * q_factor);
      weights[i] = of_p > of_q ? of_p - of_q : 0;
    }
  }
};

// The tiles' sums of max(0, p - q) of each sequence's refused draft.
__global__ void __launch_bounds__(kSampleThreads, 2)
    ExcessTilesKernel(const __grid_constant__ VerifyLaunch launch) {
  __shared__ Sum parts[11][32];
  const int sequence = blockIdx.y;
  const Verdict verdict(launch, sequence);
  if (verdict.whole) return;
  const int i = verdict.accepted;
  const RowDistribution p(launch.target, sequence * (launch.drafts + 1) + i, parts[0]);
  if (!p.usable() || p.greedy()) return;
  const RowDistribution q(launch.draft, sequence * launch.drafts + i, parts[1]);
  const Excess excess(p, q, parts + 2);
  for (int tile = blockIdx.x; tile < launch.target.tiles; tile += launch.target.blocks) {
    Sum weights[kTokensPerThread];
    excess.Weights(tile, parts + 6, weights);
    Sum sum = 0;
#pragma unroll
    for (int k = 0; k < kTokensPerThread; ++k) sum += weights[k];
    Sum total;
    BlockScan(sum, parts[10], &total);
    if (threadIdx.x == 0) {
      launch.tile_weights[static_cast<int64_t>(sequence) * launch.target.tiles + tile] = total;
    }
    __syncthreads();  // the parts are free again
  }
}

// The token after the accepted drafts.
__global__ void __launch_bounds__(kSampleThreads)
    FinishDraftsKernel(const __grid_constant__ VerifyLaunch launch) {
  __shared__ Sum parts[12][32];
  __shared__ PickScratch scratch[1];
  const int sequence = blockIdx.x;
  const Verdict verdict(launch, sequence);
  const int i = verdict.accepted;
  WriteAccepted(launch, sequence, i);
  int32_t* token = launch.tokens + static_cast<int64_t>(sequence) * (launch.drafts + 1) + i;
  const RowDistribution p(launch.target, sequence * (launch.drafts + 1) + i, parts[0]);
  if (!p.usable() || p.greedy()) {
    if (threadIdx.x == 0) *token = p.usable() ? p.best() : -1;
    return;
  }
  const Sum uniform =
      UniformBits(p.params.seed, p.params.position, verdict.whole ? 0 : kInsteadDraw);
  if (verdict.whole) return PickToken(launch.target, p.row, p.params, uniform, scratch[0], token);

  Sum tiles[kTilesPerThread];
  Sum sum = 0;
#pragma unroll
  for (int k = 0; k < kTilesPerThread; ++k) {
    const int tile = static_cast<int>(threadIdx.x) * kTilesPerThread + k;
    tiles[k] =
        tile < launch.target.tiles
            ? launch.tile_weights[static_cast<int64_t>(sequence) * launch.target.tiles + tile]
            : 0;
    sum += tiles[k];
  }
  Sum total;
  Sum before = BlockScan(sum, parts[1], &total);
  // Where p and q differ by less than the roundings p is as good.
  if (total == 0) return PickToken(launch.target, p.row, p.params, uniform, scratch[0], token);
  FindExceeding(tiles, before, __umul64hi(uniform, total), scratch[0]);
  const int tile = scratch[0].place;
  const Sum left = scratch[0].left;

  const RowDistribution q(launch.draft, sequence * launch.drafts + i, parts[2]);
  const Excess excess(p, q, parts + 3);
  Sum weights[kTokensPerThread];
  excess.Weights(tile, parts + 7, weights);
  sum = 0;
#pragma unroll
  for (int k = 0; k < kTokensPerThread; ++k) sum += weights[k];
  before = BlockScan(sum, parts[11], &total);
  FindExceeding(weights, before, left, scratch[0]);
  if (threadIdx.x == 0) *token = tile * kSampleTile + scratch[0].place;
}

cudaError_t StartMatchDrafts(const VerifyLaunch& launch, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(launch.sequences));
  config.blockDim = dim3(kSampleThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, MatchDraftsKernel, launch);
}

cudaError_t StartJudgeDrafts(const VerifyLaunch& launch, cudaStream_t stream) {
  const auto sequences = static_cast<unsigned>(launch.sequences);
  cudaLaunchConfig_t config{};
  config.blockDim = dim3(kSampleThreads);
  config.stream = stream;
  config.gridDim = dim3(static_cast<unsigned>(launch.drafts), sequences);
  cudaError_t error = cudaLaunchKernelEx(&config, JudgeDraftsKernel, launch);
  if (error != cudaSuccess) return error;
  config.gridDim = dim3(static_cast<unsigned>(launch.target.blocks), sequences);
  error = cudaLaunchKernelEx(&config, ExcessTilesKernel, launch);
  if (error != cudaSuccess) return error;
  config.gridDim = dim3(sequences);
  return cudaLaunchKernelEx(&config, FinishDraftsKernel, launch);
}

}  // namespace quern::kernels
