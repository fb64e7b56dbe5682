#pragma once

#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/common/sort_key.cuh"
#include "kernels/cuda/sampling/sampling_launch.h"

// Ranks and weights of a row's tokens.
namespace quern::kernels {

using Sum = unsigned long long;

inline constexpr uint32_t kNoRank = 0x80000000u;    // of a token that is never drawn
inline constexpr uint32_t kBadLogit = 0xffffffffu;  // in place of the sort key of NaN and infinity

__device__ __forceinline__ bool IsGreedy(const SampleLaunch& launch, const SampleRow& params) {
  return !launch.any_draw || !(params.temperature >= 1e-5f) || params.top_k == 1;
}
__device__ __forceinline__ bool HasTopK(const SampleLaunch& launch, const SampleRow& params) {
  return launch.any_top_k && params.top_k > 1;
}
__device__ __forceinline__ bool HasTopP(const SampleLaunch& launch, const SampleRow& params) {
  return launch.any_top_p && params.top_p < 1;
}

__device__ __forceinline__ SampleRow ParamsOf(const SampleLaunch& launch, int row) {
  SampleRow params = launch.params[row / launch.rows_per_params];
  params.position += static_cast<uint64_t>(row % launch.rows_per_params);
  return params;
}

// The four logits from `first` on; -infinity beyond the row.
__device__ __forceinline__ float4 LoadLogits(const SampleLaunch& launch, int row, int first) {
  const float* logits = launch.logits + row * launch.stride + first;
  if (first + 4 <= launch.vocab) return __ldg(reinterpret_cast<const float4*>(logits));
  const float none = __int_as_float(static_cast<int>(0xff800000u));
  return make_float4(first < launch.vocab ? logits[0] : none,
                     first + 1 < launch.vocab ? logits[1] : none,
                     first + 2 < launch.vocab ? logits[2] : none, none);
}

// The row's greatest logit: its sort key above its id's complement.
__device__ __forceinline__ Sum RowMax(const SampleLaunch& launch, int row, Sum* parts) {
  Sum best = 0;
  for (int i = threadIdx.x; i < launch.blocks; i += kSampleThreads) {
    best = max(best, launch.maxima[static_cast<int64_t>(row) * launch.blocks + i]);
  }
  return BlockMax(best, parts);
}

// Whether the row has a token to pick.
__device__ __forceinline__ bool IsUsable(Sum row_max) {
  const auto key = static_cast<uint32_t>(row_max >> 32);
  return key != kBadLogit && key != SortKey(__int_as_float(static_cast<int>(0xff800000u)));
}

struct RowScale {
  float max;
  float inverse_temperature;
  uint32_t last;  // the last rank that min_p keeps

  __device__ RowScale(Sum row_max, const SampleRow& params)
      : max(SortKeyValue(static_cast<uint32_t>(row_max >> 32))),
        inverse_temperature(1.0f / params.temperature),
        last(kNoRank - 1) {
    if (!(params.min_p > 0)) return;
    const float x = params.min_p < 1 ? -logf(params.min_p) : 0.0f;
    if (x < 32.0f) last = static_cast<uint32_t>(x * 0x1p26f);
  }

  // (max - logit) / temperature as a multiple of 2^-26; kNoRank where it is 32 or more, so that the
  // weight is 0, and where min_p cuts.
  __device__ __forceinline__ uint32_t Rank(float logit) const {
    const float x = (max - logit) * inverse_temperature;
    const uint32_t rank = x < 32.0f ? static_cast<uint32_t>(x * 0x1p26f) : kNoRank;
    return rank <= last ? rank : kNoRank;
  }
};

__device__ __forceinline__ Sum WeightOf(uint32_t rank) {
  if (rank >= kNoRank) return 0;
  return static_cast<Sum>(expf(static_cast<float>(rank) * -0x1p-26f) * 0x1p44f);
}

}  // namespace quern::kernels
