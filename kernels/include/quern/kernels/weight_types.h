#pragma once

#include <cstdint>

namespace quern::kernels {

// Storage types of weights that the kernels can multiply with; the numbers are GGUF's (ggml.h,
// `enum ggml_type`).
enum class WeightType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

inline constexpr WeightType kAllWeightTypes[] = {
    WeightType::kF32,  WeightType::kF16,  WeightType::kBF16, WeightType::kQ4_0,
    WeightType::kQ4_1, WeightType::kQ5_0, WeightType::kQ5_1, WeightType::kQ8_0,
    WeightType::kQ4_K, WeightType::kQ5_K, WeightType::kQ6_K};

struct WeightTypeInfo {
  const char* name;
  int block_elements;  // a row's length is a multiple of this
  int block_bytes;     // GGUF's bytes for one block
};

// Null where the kernels cannot multiply with the type.
const WeightTypeInfo* FindWeightTypeInfo(WeightType type);

constexpr bool IsFloatType(WeightType type) {
  return type == WeightType::kF32 || type == WeightType::kF16 || type == WeightType::kBF16;
}

}  // namespace quern::kernels
