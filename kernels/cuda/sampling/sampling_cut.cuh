#pragma once

#include "kernels/cuda/sampling/sampling_row.cuh"

// The searches for the last token that top_k and top_p keep.
namespace quern::kernels {

// The first bin at which the running count (or weight) reaches what is searched for.
struct FoundBin {
  uint32_t found;  // no bool: copies of shared memory must have no bytes that nobody wrote
  uint32_t bin;
  Sum count_before;
  Sum weight_before;
  Sum total_weight;  // of all bins
};

struct FindScratch {
  Sum parts[2][32];
  FoundBin found;
};

template <CutStep kStep>
inline constexpr int kFirstBinOf = kStep == kFirst ? 0 : kFirstBins + (kStep - 1) * kLaterBins;

// All threads of the block; a step's histogram must be complete.
template <CutStep kStep>
__device__ FoundBin FindBin(const SampleLaunch& launch, int row, Sum target, bool by_weight,
                            FindScratch& scratch) {
  constexpr int kPer = (kStep == kFirst ? kFirstBins : kLaterBins) / kSampleThreads;
  const int own = static_cast<int>(threadIdx.x) * kPer;
  const int64_t bins = static_cast<int64_t>(row) * kBinsOfAll + kFirstBinOf<kStep> + own;
  Sum counts[kPer];
  Sum weights[kPer];
  Sum count = 0;
  Sum weight = 0;
#pragma unroll
  for (int i = 0; i < kPer; i += 4) {
    const uint4 four = *reinterpret_cast<const uint4*>(launch.bin_counts + bins + i);
    const ulonglong2 low = *reinterpret_cast<const ulonglong2*>(launch.bin_weights + bins + i);
    const ulonglong2 high = *reinterpret_cast<const ulonglong2*>(launch.bin_weights + bins + i + 2);
    counts[i] = four.x;
    counts[i + 1] = four.y;
    counts[i + 2] = four.z;
    counts[i + 3] = four.w;
    weights[i] = low.x;
    weights[i + 1] = low.y;
    weights[i + 2] = high.x;
    weights[i + 3] = high.y;
    count += static_cast<Sum>(four.x) + four.y + four.z + four.w;
    weight += low.x + low.y + high.x + high.y;
  }
  Sum total_count;
  Sum total_weight;
  Sum count_before = BlockScan(count, scratch.parts[0], &total_count);
  Sum weight_before = BlockScan(weight, scratch.parts[1], &total_weight);
  if (threadIdx.x == 0) {
    scratch.found = {0, 0, total_count, total_weight, total_weight};
  }
  __syncthreads();
  const Sum before = by_weight ? weight_before : count_before;
  if (before < target && target <= before + (by_weight ? weight : count)) {
    // The unrolled loop runs to its end, so that the bins stay in registers.
    bool found = false;
#pragma unroll
    for (int i = 0; i < kPer; ++i) {
      const Sum reached = by_weight ? weight_before + weights[i] : count_before + counts[i];
      if (!found && reached >= target) {
        scratch.found = {1, static_cast<uint32_t>(own + i), count_before, weight_before,
                         total_weight};
        found = true;
      }
      count_before += counts[i];
      weight_before += weights[i];
    }
  }
  __syncthreads();
  return scratch.found;
}

__device__ __forceinline__ const CutState& StateOf(const SampleLaunch& launch, int row,
                                                   CutStep step) {
  return launch.states[static_cast<int64_t>(row) * kCutSteps + step];
}

// After all steps of top_k's search.
__device__ inline RankCut TopKCut(const SampleLaunch& launch, int row, FindScratch& scratch) {
  const CutState state = StateOf(launch, row, kTopKThird);
  if (state.found == 0) return {kNoRank, 0, state.weight_before};
  const FoundBin at = FindBin<kTopKThird>(launch, row, state.left, false, scratch);
  const uint32_t last = state.prefix << 10 | at.bin;
  const auto ties = static_cast<uint32_t>(state.left - at.count_before);
  return {last, ties, state.weight_before + at.weight_before + ties * WeightOf(last)};
}

// After all steps of top_p's search.
__device__ inline RankCut TopPCut(const SampleLaunch& launch, int row, FindScratch& scratch) {
  const CutState state = StateOf(launch, row, kTopPThird);
  const FoundBin at = FindBin<kTopPThird>(launch, row, state.left, true, scratch);
  const uint32_t last = state.prefix << 10 | at.bin;
  const Sum weight = WeightOf(last);  // not 0, as the bin's sum is not
  const Sum ties = (state.left - at.weight_before + weight - 1) / weight;
  return {last, static_cast<uint32_t>(ties),
          state.weight_before + at.weight_before + ties * weight};
}

}  // namespace quern::kernels
