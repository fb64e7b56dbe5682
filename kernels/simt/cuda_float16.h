#pragma once

#include "kernels/simt/cuda_language.h"
#include "kernels/simt/float_formats.h"

// CUDA's binary16 and bfloat16 with the functions that the kernels use. Sums and products are
// rounded once, as the device's instructions do.
// NOLINTBEGIN(bugprone-reserved-identifier): CUDA's names

struct alignas(2) __half {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
struct alignas(2) __nv_bfloat16 {
  uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

#define QUERN_SIMT_FLOAT16(type, type2, format)                                                   \
  inline type __hadd(type a, type b) {                                                            \
    return {quern::simt::Add(quern::simt::FloatFormat::format, a.bits, b.bits)};                  \
  }                                                                                               \
  inline type __hneg(type a) { return {static_cast<uint16_t>(a.bits ^ 0x8000u)}; }                \
  inline type __hsub(type a, type b) { return __hadd(a, __hneg(b)); }                             \
  inline type __hmul(type a, type b) {                                                            \
    return {quern::simt::Multiply(quern::simt::FloatFormat::format, a.bits, b.bits)};             \
  }                                                                                               \
  inline type __hfma(type a, type b, type c) {                                                    \
    return {                                                                                      \
        quern::simt::FusedMultiplyAdd(quern::simt::FloatFormat::format, a.bits, b.bits, c.bits)}; \
  }                                                                                               \
  inline type2 __hadd2(type2 a, type2 b) { return {__hadd(a.x, b.x), __hadd(a.y, b.y)}; }         \
  inline type2 __hsub2(type2 a, type2 b) { return {__hsub(a.x, b.x), __hsub(a.y, b.y)}; }         \
  inline type2 __hmul2(type2 a, type2 b) { return {__hmul(a.x, b.x), __hmul(a.y, b.y)}; }         \
  inline type2 __hfma2(type2 a, type2 b, type2 c) {                                               \
    return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};                                        \
  }
QUERN_SIMT_FLOAT16(__half, __half2, kF16)
QUERN_SIMT_FLOAT16(__nv_bfloat16, __nv_bfloat162, kBf16)
#undef QUERN_SIMT_FLOAT16

inline float __half2float(__half x) {
  return quern::simt::Widen(quern::simt::FloatFormat::kF16, x.bits);
}
inline __half __float2half_rn(float x) {
  return {static_cast<uint16_t>(
      quern::simt::Narrow(quern::simt::FloatFormat::kF16, static_cast<double>(x)))};
}
inline __half __float2half(float x) { return __float2half_rn(x); }
inline __half2 __float2half2_rn(float x) { return {__float2half_rn(x), __float2half_rn(x)}; }
inline __half2 __floats2half2_rn(float x, float y) {
  return {__float2half_rn(x), __float2half_rn(y)};
}
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline float2 __half22float2(__half2 x) { return {__half2float(x.x), __half2float(x.y)}; }
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half x) { return x.bits; }

inline float __bfloat162float(__nv_bfloat16 x) {
  return quern::simt::Widen(quern::simt::FloatFormat::kBf16, x.bits);
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  return {static_cast<uint16_t>(
      quern::simt::Narrow(quern::simt::FloatFormat::kBf16, static_cast<double>(x)))};
}
inline __nv_bfloat16 __float2bfloat16(float x) { return __float2bfloat16_rn(x); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline float2 __bfloat1622float2(__nv_bfloat162 x) {
  return {__bfloat162float(x.x), __bfloat162float(x.y)};
}
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }

// NOLINTEND(bugprone-reserved-identifier)
