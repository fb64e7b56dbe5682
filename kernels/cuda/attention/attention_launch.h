#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "quern/kernels/device_kv.h"

namespace quern::kernels {

// What the kernels are told: DeviceAttentionArgs, checked.
struct DeviceAttentionLaunch {
  const uint8_t* k;
  const uint8_t* v;
  const uint8_t* k_scales;
  const uint8_t* v_scales;
  const float* k_head_scales;
  const float* v_head_scales;
  const uint16_t* q;
  uint16_t* out;
  int64_t q_stride;  // elements
  int64_t out_stride;
  const int32_t* query_begins;
  const int32_t* contexts;
  const int32_t* tables;
  int64_t table_stride;
  const float* sinks;
  // Decode's parts: sums [sequence][row tile][kv_head][split][16 rows][head_dim], then the largest
  // score (in units of log2) and the sum of weights [...][16 rows][2].
  float* parts;
  float* stats;
  float scale;
  float softcap;
  int32_t window;
  int32_t max_queries;
  int32_t max_context;
  int32_t sequences;
  int32_t kv_heads;
  int32_t group;         // query heads of a KV head
  int32_t block_tokens;  // of the cache
  int32_t row_tiles;     // of a sequence and KV head, at most
  int32_t max_splits;    // of a row tile; 1 for prefill
};

inline constexpr int kDecodeRows = 16;  // of a row tile
inline constexpr int kPrefillRows = 64;
inline constexpr int kSplitGranule = 16;  // tokens: a split begins at a multiple
inline constexpr int kMinSplitTokens = 256;
inline constexpr int kMaxSplits = 64;

// The tokens of each split of `span` tokens: as few as kMaxSplits splits allow.
__host__ __device__ constexpr int SplitTokens(int span) {
  int tokens = kMinSplitTokens;
  while (int64_t{tokens} * kMaxSplits < span) tokens *= 2;
  return tokens;
}
__host__ __device__ constexpr int SplitCount(int span) {
  const int tokens = SplitTokens(span);
  return span <= tokens ? 1 : (span + tokens - 1) / tokens;
}
// The largest SplitCount of all spans up to this one.
__host__ __device__ constexpr int MostSplits(int span) {
  return span >= kMinSplitTokens * kMaxSplits ? kMaxSplits : SplitCount(span);
}

// Starts the kernel of the activations' type (__half or __nv_bfloat16) and the cache's format;
// decode or prefill. Allows the kernel its shared memory.
template <typename T, DeviceKvFormat kFormat>
cudaError_t StartDeviceAttention(int head_dim, bool decode, const DeviceAttentionLaunch& launch,
                                 cudaStream_t stream);

// Adds the parts of the splits, where a row tile has more than one.
template <typename T>
cudaError_t StartCombineSplits(int head_dim, const DeviceAttentionLaunch& launch,
                               cudaStream_t stream);

}  // namespace quern::kernels
