#pragma once

#include "quern/kernels/weight_types.h"

// The sizes of the GPU's layout of GGUF's types (gguf_weights.h), for the host and the kernels.
namespace quern::kernels {

constexpr bool IsGgufKType(WeightType type) {
  return type == WeightType::kQ4_K || type == WeightType::kQ6_K;
}
// Groups of 32 columns in a block.
constexpr int GgufBlockGroups(WeightType type) { return IsGgufKType(type) ? 8 : 1; }

// Bytes of the codes of 32 rows and 32 columns; 0 for a type that has no such layout.
constexpr int GgufCodeBytes(WeightType type) {
  switch (type) {
    case WeightType::kQ8_0:
      return 1024;
    case WeightType::kQ6_K:
      return 768;
    case WeightType::kQ5_0:
      return 640;
    case WeightType::kQ4_0:
    case WeightType::kQ4_1:
    case WeightType::kQ4_K:
      return 512;
    default:
      return 0;
  }
}

// Bytes of the record of 32 rows and one block.
constexpr int GgufRecordBytes(WeightType type) {
  switch (type) {
    case WeightType::kQ6_K:
      return 576;
    case WeightType::kQ4_K:
      return 512;
    case WeightType::kQ4_1:
      return 128;
    default:
      return 64;
  }
}

constexpr int GgufBlockBytes(WeightType type) {
  return GgufBlockGroups(type) * GgufCodeBytes(type) + GgufRecordBytes(type);
}

}  // namespace quern::kernels
