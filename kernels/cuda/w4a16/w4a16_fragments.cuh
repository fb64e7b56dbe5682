#pragma once

#include "kernels/cuda/common/float16.cuh"
#include "kernels/cuda/common/ptx.cuh"
#include "quern/kernels/w4_weights.h"

// From packed codes to fragments of mma.sync's A operand, and from those sums to scaled ones. Codes
// are widened to whole numbers, which binary16 and bfloat16 hold exactly; scales are applied to the
// float32 sums, so that weights are not rounded.
namespace quern::kernels {

// What one lane needs of a record for the half `half` of the tile's columns: the numbers of the
// rows g (upper 0) and g + 8 (upper 1).
template <W4Format kFormat>
struct TileScales;

template <>
struct TileScales<W4Format::kAwq> {
  float scale[2];
  uint32_t zero[2];

  __device__ __forceinline__ void Load(const uint8_t* record, int g, int /*half*/) {
    const uint2 bits = reinterpret_cast<const uint2*>(record)[g];
    scale[0] = __half2float(__ushort_as_half(static_cast<uint16_t>(bits.x)));
    scale[1] = __half2float(__ushort_as_half(static_cast<uint16_t>(bits.y)));
    zero[0] = bits.x >> 16;
    zero[1] = bits.y >> 16;
  }
  __device__ __forceinline__ uint32_t Zero(int upper) const { return zero[upper]; }
};

template <>
struct TileScales<W4Format::kQ4_0> {
  float scale[2];

  __device__ __forceinline__ void Load(const uint8_t* record, int g, int half) {
    const float2 d = __half22float2(reinterpret_cast<const __half2*>(record)[g * 2 + half]);
    scale[0] = d.x;
    scale[1] = d.y;
  }
  __device__ __forceinline__ uint32_t Zero(int /*upper*/) const { return 8; }
};

template <>
struct TileScales<W4Format::kQ4_1> {
  float scale[2];
  float minimum[2];

  __device__ __forceinline__ void Load(const uint8_t* record, int g, int half) {
    const uint2 bits = reinterpret_cast<const uint2*>(record)[g * 2 + half];
    const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&bits.x));
    const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&bits.y));
    scale[0] = low.x;
    scale[1] = high.x;
    minimum[0] = low.y;
    minimum[1] = high.y;
  }
  __device__ __forceinline__ uint32_t Zero(int /*upper*/) const { return 0; }
};

// Eight codes of one word as (q - z) in the A operand's order; z by row, g and g + 8.
//
// A 16-bit float with a fixed exponent carries a small integer in its mantissa: 1024 + q in
// binary16, 128 + q in bfloat16, made by an OR (Kim et al. 2022, "Who Says Elephants Can't Run",
// section 3). The subtraction is exact.
template <typename T>
__device__ __forceinline__ void Widen(uint32_t word, uint32_t zero_low, uint32_t zero_high,
                                      uint32_t (&a)[4]);

template <>
__device__ __forceinline__ void Widen<__half>(uint32_t word, uint32_t zero_low, uint32_t zero_high,
                                              uint32_t (&a)[4]) {
  // Row g: nibbles 0 and 4 are 1024 + q. Row g + 8: nibbles 1 and 5 are 1024 + 16 q, a sixteenth of
  // which is 64 + q.
  const uint32_t low = (0x6400u | zero_low) * 0x10001u;
  const uint32_t high = (0xd400u | (zero_high << 4)) * 0x10001u;  // -(64 + z)
  const __half2 sixteenth = __float2half2_rn(0.0625f);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t bits = word >> (8 * i);
    const uint32_t row_g = ptx::AndOr(bits, 0x000f000fu, 0x64006400u);
    const uint32_t row_g8 = ptx::AndOr(bits, 0x00f000f0u, 0x64006400u);
    const __half2 x =
        __hsub2(*reinterpret_cast<const __half2*>(&row_g), *reinterpret_cast<const __half2*>(&low));
    const __half2 y = __hfma2(*reinterpret_cast<const __half2*>(&row_g8), sixteenth,
                              *reinterpret_cast<const __half2*>(&high));
    a[2 * i] = *reinterpret_cast<const uint32_t*>(&x);
    a[2 * i + 1] = *reinterpret_cast<const uint32_t*>(&y);
  }
}

template <>
__device__ __forceinline__ void Widen<__nv_bfloat16>(uint32_t word, uint32_t zero_low,
                                                     uint32_t zero_high, uint32_t (&a)[4]) {
  const uint32_t zeros[2] = {(0x4300u | zero_low) * 0x10001u, (0x4300u | zero_high) * 0x10001u};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t bits = ptx::AndOr(word >> (4 * i), 0x000f000fu, 0x43004300u);
    const __nv_bfloat162 x = __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&bits),
                                     *reinterpret_cast<const __nv_bfloat162*>(&zeros[i % 2]));
    a[i] = *reinterpret_cast<const uint32_t*>(&x);
  }
}

}  // namespace quern::kernels
