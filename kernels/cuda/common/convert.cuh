#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

// Between float32 and the 16- and 8-bit formats, in the packed words that kernels load and store:
// the element that comes first in memory is in the lowest bits.
namespace quern::kernels {

template <typename T>
using Pair16 = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;

__device__ __forceinline__ float WidenHalf(uint32_t bits) {
  return __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
}

template <typename T>
__device__ __forceinline__ float2 WidenPair(uint32_t bits) {
  if constexpr (std::is_same_v<T, __half>) {
    return make_float2(__half2float(__ushort_as_half(static_cast<uint16_t>(bits))),
                       __half2float(__ushort_as_half(static_cast<uint16_t>(bits >> 16))));
  } else {
    return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
  }
}

// To nearest, ties to even; too large becomes infinity.
template <typename T>
__device__ __forceinline__ uint32_t NarrowPair(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    return __half_as_ushort(pair.x) | static_cast<uint32_t>(__half_as_ushort(pair.y)) << 16;
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return __bfloat16_as_ushort(pair.x) | static_cast<uint32_t>(__bfloat16_as_ushort(pair.y)) << 16;
  }
}

template <typename T>
__device__ __forceinline__ float4 WidenFour(uint2 bits) {
  const float2 low = WidenPair<T>(bits.x);
  const float2 high = WidenPair<T>(bits.y);
  return make_float4(low.x, low.y, high.x, high.y);
}

template <typename T>
__device__ __forceinline__ uint2 NarrowFour(float4 v) {
  return make_uint2(NarrowPair<T>(v.x, v.y), NarrowPair<T>(v.z, v.w));
}

// A value within +-127.49 to a signed byte, to nearest, ties to even.
__device__ __forceinline__ uint32_t NarrowInt8(float value) {
  return static_cast<uint32_t>(static_cast<int32_t>(rintf(value))) & 0xffu;
}

// To E4M3 (OCP 8-bit floating point, 2023), to nearest, ties to even, beyond 448 to 448; not for
// NaN. In integers, as there is no instruction before sm_89.
__device__ __forceinline__ uint32_t NarrowE4m3(float value) {
  const uint32_t sign = __float_as_uint(value) >> 24 & 0x80u;
  const float magnitude = fminf(fabsf(value), 448.0f);
  // Below 2^-6 the format's step is 2^-9: adding 2^14 lets the adder round to it.
  if (magnitude < 0x1p-6f) return sign | (__float_as_uint(magnitude + 0x1p14f) & 0xffu);
  const uint32_t bits = __float_as_uint(magnitude);
  return sign | ((bits + 0x7ffffu + (bits >> 20 & 1u) - (120u << 23)) >> 20);
}

}  // namespace quern::kernels
