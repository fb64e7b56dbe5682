#pragma once

#include "kernels/cuda/attention/kv_fragments.cuh"

namespace quern::kernels {

// How a thread block of the attention kernel is made up.
template <typename T, int kHeadDim, DeviceKvFormat kFormat, bool kDecode>
struct AttentionShape {
  using Keys = KeyTile<T, kFormat, kHeadDim>;
  using Values = ValueTile<T, kFormat, kHeadDim>;
  // Of the widest rows two warps' pipelines are as much as the smaller GPUs' shared memory holds.
  static constexpr bool kWide = kHeadDim == 256 && kFormat == DeviceKvFormat::k16Bit;
  static constexpr int kRowWarps = kDecode ? 1 : 4;
  static constexpr int kTokenWarps = !kDecode ? 1 : kWide ? 2 : 4;
  static constexpr int kThreads = 32 * kRowWarps * kTokenWarps;
  // 32 where registers are enough for the scores of as many.
  static constexpr int kStep =
      kDecode || kHeadDim == 256 || (kHeadDim == 128 && kFormat == DeviceKvFormat::kInt4) ? 16 : 32;
  static constexpr int kScaleBytes = kHeadDim / kKvGroup * 2;  // of a token
  static constexpr int kKeyBytes = kStep * Keys::kRowBytes;
  static constexpr int kValueBytes = kStep * Values::kRowBytes;
  static constexpr int kStepScales = Keys::kScaled ? kStep * kScaleBytes : 0;
  static constexpr int kStageBytes = kKeyBytes + kValueBytes + 2 * kStepScales;
  static constexpr int kStages = kStageBytes < 8 * 1024 ? 3 : 2;
  // Q stays in registers if there are enough of them.
  static constexpr bool kSharedQ = kHeadDim == 256;
  static constexpr int kQBytes = kSharedQ ? kRowWarps * 16 * kHeadDim * 2 : 0;
  static constexpr int kPipelineBytes = kTokenWarps * kStages * kStageBytes;
  static constexpr int kSumBytes = 16 * kHeadDim * 4;  // of a warp
  static constexpr int kMergeBytes = kDecode ? kTokenWarps * (kSumBytes + 16 * 8) : 0;
  static constexpr int kSharedBytes =
      kQBytes + (kPipelineBytes > kMergeBytes ? kPipelineBytes : kMergeBytes);
  // Thread blocks that a multiprocessor's registers are to be enough for; more would spill.
  static constexpr int kResident = kHeadDim == 64                                ? (kDecode ? 4 : 3)
                                   : kHeadDim == 128 && kDecode && !Keys::kBytes ? 3
                                                                                 : 2;
  static_assert(kSharedBytes <= 99 * 1024, "compute capability 8.6 and 8.9 have no more");
};

}  // namespace quern::kernels
