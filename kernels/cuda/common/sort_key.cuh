#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// Floats as whole numbers of the same order, for reductions and histograms. -0 is 0's equal.
namespace quern::kernels {

inline constexpr uint32_t kNoSortKey = 0;   // less than every value's
inline constexpr uint32_t kNanSortKey = 1;  // less than every number's

__device__ __forceinline__ uint32_t SortKey(float value) {
  if (value != value) return kNanSortKey;
  const uint32_t bits = __float_as_uint(value + 0.0f);  // -0 + 0 is 0
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// The value of a number's key; kNanSortKey and kNoSortKey give NaN.
__device__ __forceinline__ float SortKeyValue(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

}  // namespace quern::kernels
