#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

// binary16 and bfloat16 under one name, for kernels that are templates over the two.
namespace quern::kernels {

__device__ __forceinline__ __half RoundTo(float value, __half /*type*/) {
  return __float2half_rn(value);
}
__device__ __forceinline__ __nv_bfloat16 RoundTo(float value, __nv_bfloat16 /*type*/) {
  return __float2bfloat16_rn(value);
}

// Two ones of type T in a word: an A operand full of them sums the columns of B.
template <typename T>
inline constexpr uint32_t kOnes = 0x3c003c00u;
template <>
inline constexpr uint32_t kOnes<__nv_bfloat16> = 0x3f803f80u;

// sums += scale * part, of a fragment's rows: (x, y) are row g, (z, w) row g + 8.
__device__ __forceinline__ void AddScaled(float4& sums, float low, float high, float4 part) {
  sums.x = fmaf(low, part.x, sums.x);
  sums.y = fmaf(low, part.y, sums.y);
  sums.z = fmaf(high, part.z, sums.z);
  sums.w = fmaf(high, part.w, sums.w);
}

}  // namespace quern::kernels
