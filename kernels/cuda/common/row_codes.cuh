#pragma once

#include "kernels/cuda/common/convert.cuh"
#include "quern/kernels/row_output.h"

// A row as codes with one scale (row_output.h), for kernels that hold it in the registers of a
// thread block.
namespace quern::kernels {

// The bits of the largest magnitude: infinity's and NaN's are larger than any number's.
__device__ __forceinline__ uint32_t LargestBits(uint32_t largest, float4 v) {
  return max(max(max(largest, __float_as_uint(v.x) & 0x7fffffffu),
                 max(__float_as_uint(v.y) & 0x7fffffffu, __float_as_uint(v.z) & 0x7fffffffu)),
             __float_as_uint(v.w) & 0x7fffffffu);
}

template <RowOutput kOutput>
struct RowCodes {
  float to_codes;  // 0: all codes are 0
  float scale;

  // Of a row whose largest magnitude has these bits.
  __device__ __forceinline__ explicit RowCodes(uint32_t largest_bits) {
    constexpr float kLargestCode = kOutput == RowOutput::kInt8 ? 127.0f : 448.0f;
    const float largest = __uint_as_float(largest_bits);
    const bool finite = largest < __uint_as_float(0x7f800000u);
    to_codes = finite && largest >= 1e-30f ? kLargestCode / largest : 0.0f;
    scale = !finite             ? __uint_as_float(0x7fffffffu)
            : largest >= 1e-30f ? largest / kLargestCode
                                : 0.0f;
  }

  static __device__ __forceinline__ uint32_t Code(float value) {
    return kOutput == RowOutput::kInt8 ? NarrowInt8(value) : NarrowE4m3(value);
  }
  __device__ __forceinline__ uint32_t Four(float4 v) const {
    if (to_codes == 0) return 0;  // a value that is no number has no code
    return Code(v.x * to_codes) | Code(v.y * to_codes) << 8 | Code(v.z * to_codes) << 16 |
           Code(v.w * to_codes) << 24;
  }
};

}  // namespace quern::kernels
