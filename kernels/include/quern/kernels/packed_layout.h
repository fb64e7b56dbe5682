#pragma once

#include "quern/kernels/weight_types.h"

namespace quern::kernels {

// Byte counts, per row (lane), of the parts of packed_matrix.h's layout; known at compile time to
// the kernels.
struct PackedLayout {
  int head;        // before each block: d and m of the K types
  int scales;      // before each group of 32: d, m; or sc, mn
  int low;         // 16: nibbles; 32: whole bytes
  int high;        // upper bits
  int groups;      // groups of 32 that share a head
  int high_width;  // upper bits per weight
  int offset;      // subtracted from q
};

constexpr PackedLayout LayoutOf(WeightType type) {
  switch (type) {
    case WeightType::kQ4_0:
      return {0, 2, 16, 0, 1, 0, 8};
    case WeightType::kQ4_1:
      return {0, 4, 16, 0, 1, 0, 0};
    case WeightType::kQ5_0:
      return {0, 2, 16, 4, 1, 1, 16};
    case WeightType::kQ5_1:
      return {0, 4, 16, 4, 1, 1, 0};
    case WeightType::kQ8_0:
      return {0, 2, 32, 0, 1, 0, 0};
    case WeightType::kQ4_K:
      return {4, 2, 16, 0, 8, 0, 0};
    case WeightType::kQ5_K:
      return {4, 2, 16, 4, 8, 1, 0};
    case WeightType::kQ6_K:
      return {2, 2, 16, 8, 8, 2, 32};
    default:
      return {};
  }
}

constexpr int GroupBytes(WeightType type) {
  const PackedLayout layout = LayoutOf(type);
  return layout.scales + layout.low + layout.high;
}

constexpr int BlockBytes(WeightType type) {
  return LayoutOf(type).head + LayoutOf(type).groups * GroupBytes(type);
}

}  // namespace quern::kernels
