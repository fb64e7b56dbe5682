#include "kernels/cuda/sampling/sampling_cut.cuh"

namespace quern::kernels {

// What top_p of the weight is, of which the kept tokens must have at least as much.
__device__ __forceinline__ Sum MassOf(float top_p, Sum weight) {
  const double mass = ceil(static_cast<double>(top_p) * static_cast<double>(weight));
  if (!(mass >= 1)) return 1;  // the likeliest token always stays
  const Sum whole = static_cast<Sum>(mass);
  return whole < weight ? whole : weight;
}

// The state before the step: from the histogram of the one before.
template <CutStep kStep>
__device__ CutState Advance(const SampleLaunch& launch, int row, const SampleRow& params,
                            FindScratch& scratch) {
  if constexpr (kStep == kFirst) {
    return {0, 1, 0, 0};
  } else if constexpr (kStep == kTopKSecond) {
    const Sum count = static_cast<Sum>(params.top_k);
    const FoundBin at = FindBin<kFirst>(launch, row, count, false, scratch);
    if (at.found == 0) return {0, 0, 0, at.total_weight};
    return {at.bin, 1, count - at.count_before, at.weight_before};
  } else if constexpr (kStep == kTopPSecond) {
    const Sum weight = HasTopK(launch, params)
                           ? TopKCut(launch, row, scratch).weight
                           : FindBin<kFirst>(launch, row, 0, true, scratch).total_weight;
    const Sum mass = MassOf(params.top_p, weight);
    const FoundBin at = FindBin<kFirst>(launch, row, mass, true, scratch);
    return {at.bin, 1, mass - at.weight_before, at.weight_before};
  } else {
    constexpr bool kByWeight = kStep == kTopPThird;
    constexpr CutStep kBefore = kByWeight ? kTopPSecond : kTopKSecond;
    const CutState before = StateOf(launch, row, kBefore);
    if (before.found == 0) return before;
    const FoundBin at = FindBin<kBefore>(launch, row, before.left, kByWeight, scratch);
    return {before.prefix << 10 | at.bin, 1,
            before.left - (kByWeight ? at.weight_before : at.count_before),
            before.weight_before + at.weight_before};
  }
}

// Adds 64 bits in shared memory as two words, as GPUs have no such atomic there but a loop: whoever
// makes the lower word overflow carries, so that the sum is the same in every order.
__device__ __forceinline__ void AddWide(uint32_t* low, uint32_t* high, Sum value) {
  const auto part = static_cast<uint32_t>(value);
  const uint32_t before = atomicAdd(low, part);
  const uint32_t upper = static_cast<uint32_t>(value >> 32) + (before + part < before ? 1 : 0);
  if (upper != 0) atomicAdd(high, upper);
}

// Counts and weights of the tokens whose rank begins with the state's prefix, by the rank's next
// bits: in shared memory, then into the row's histogram. Sums of whole numbers: their order is
// free.
template <CutStep kStep>
__global__ void __launch_bounds__(kSampleThreads)
    SampleCutKernel(const __grid_constant__ SampleLaunch launch) {
  constexpr int kBins = kStep == kFirst ? kFirstBins : kLaterBins;
  constexpr int kShift = kStep == kFirst                                ? 20
                         : kStep == kTopKSecond || kStep == kTopPSecond ? 10
                                                                        : 0;
  constexpr bool kExact = kShift == 0;  // a bin is one rank
  __shared__ uint32_t low[kBins];       // of the weights
  __shared__ uint32_t high[kBins];
  __shared__ uint32_t counts[kBins];
  __shared__ FindScratch scratch[1];
  __shared__ Sum parts[32];
  const int row = blockIdx.y;
  const SampleRow params = ParamsOf(launch, row);
  if (IsGreedy(launch, params) ||
      !(kStep == kTopKSecond || kStep == kTopKThird   ? HasTopK(launch, params)
        : kStep == kTopPSecond || kStep == kTopPThird ? HasTopP(launch, params)
                                                      : true)) {
    return;
  }
  const Sum row_max = RowMax(launch, row, parts);
  if (!IsUsable(row_max)) return;
  const RowScale scale(row_max, params);
  const CutState state = Advance<kStep>(launch, row, params, scratch[0]);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    launch.states[static_cast<int64_t>(row) * kCutSteps + kStep] = state;
  }
  if (state.found == 0) return;

  for (int bin = threadIdx.x; bin < kBins; bin += kSampleThreads) {
    low[bin] = 0;
    high[bin] = 0;
    counts[bin] = 0;
  }
  __syncthreads();
  const auto add = [&](float logit) {
    const uint32_t rank = scale.Rank(logit);
    const uint32_t bin = (rank >> kShift) % kBins;
    if (rank >= kNoRank || (kStep != kFirst && rank >> kShift >> 10 != state.prefix)) return;
    const Sum weight = WeightOf(rank);
    if (weight == 0) return;
    if (!kExact) AddWide(&low[bin], &high[bin], weight);
    atomicAdd(&counts[bin], 1u);
  };
  for (int tile = blockIdx.x; tile < launch.tiles; tile += launch.blocks) {
#pragma unroll
    for (int i = 0; i < kSampleTile; i += kSampleThreads * 4) {
      const float4 v =
          LoadLogits(launch, row, tile * kSampleTile + i + static_cast<int>(threadIdx.x) * 4);
      add(v.x);
      add(v.y);
      add(v.z);
      add(v.w);
    }
  }
  __syncthreads();
  const int64_t bins = static_cast<int64_t>(row) * kBinsOfAll + kFirstBinOf<kStep>;
  for (int bin = threadIdx.x; bin < kBins; bin += kSampleThreads) {
    if (counts[bin] == 0) continue;
    const Sum weight = kExact ? counts[bin] * WeightOf(state.prefix << 10 | bin)
                              : static_cast<Sum>(high[bin]) << 32 | low[bin];
    atomicAdd(launch.bin_weights + bins + bin, weight);
    atomicAdd(launch.bin_counts + bins + bin, counts[bin]);
  }
}

cudaError_t StartSampleCut(const SampleLaunch& launch, CutStep step, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(launch.blocks), static_cast<unsigned>(launch.rows));
  config.blockDim = dim3(kSampleThreads);
  config.stream = stream;
  switch (step) {
    case kFirst:
      return cudaLaunchKernelEx(&config, SampleCutKernel<kFirst>, launch);
    case kTopKSecond:
      return cudaLaunchKernelEx(&config, SampleCutKernel<kTopKSecond>, launch);
    case kTopKThird:
      return cudaLaunchKernelEx(&config, SampleCutKernel<kTopKThird>, launch);
    case kTopPSecond:
      return cudaLaunchKernelEx(&config, SampleCutKernel<kTopPSecond>, launch);
    default:
      return cudaLaunchKernelEx(&config, SampleCutKernel<kTopPThird>, launch);
  }
}

}  // namespace quern::kernels
