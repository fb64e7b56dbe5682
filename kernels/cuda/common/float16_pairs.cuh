#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

// Pairs of 16-bit floats as words, the same for both types.
namespace quern::kernels {

template <typename T>
struct Float16;

template <>
struct Float16<__half> {
  using Pair = __half2;
  __device__ __forceinline__ static float2 Widen(uint32_t pair) {
    return __half22float2(*reinterpret_cast<const __half2*>(&pair));
  }
  // To nearest; beyond the type's range: infinity.
  __device__ __forceinline__ static uint32_t Pack(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
};

template <>
struct Float16<__nv_bfloat16> {
  using Pair = __nv_bfloat162;
  __device__ __forceinline__ static float2 Widen(uint32_t pair) {
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&pair));
  }
  __device__ __forceinline__ static uint32_t Pack(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
};

__device__ __forceinline__ float WidenHalf(uint32_t bits) {
  return __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
}

// kBytes (2, 4, 8 or 16) as one access, from words.
template <int kBytes>
__device__ __forceinline__ void StoreBytes(void* to, const uint32_t* words) {
  static_assert(kBytes == 2 || kBytes == 4 || kBytes == 8 || kBytes == 16);
  if constexpr (kBytes == 2) *static_cast<uint16_t*>(to) = static_cast<uint16_t>(words[0]);
  if constexpr (kBytes == 4) *static_cast<uint32_t*>(to) = words[0];
  if constexpr (kBytes == 8) *static_cast<uint2*>(to) = make_uint2(words[0], words[1]);
  if constexpr (kBytes == 16) {
    *static_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}
template <int kBytes>
__device__ __forceinline__ void LoadBytes(const void* from, uint32_t* words) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  if constexpr (kBytes == 4) words[0] = *static_cast<const uint32_t*>(from);
  if constexpr (kBytes == 8) {
    const uint2 two = *static_cast<const uint2*>(from);
    words[0] = two.x;
    words[1] = two.y;
  }
  if constexpr (kBytes == 16) {
    const uint4 four = *static_cast<const uint4*>(from);
    words[0] = four.x;
    words[1] = four.y;
    words[2] = four.z;
    words[3] = four.w;
  }
}

}  // namespace quern::kernels
