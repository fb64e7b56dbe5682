#pragma once

#include "kernels/cuda/common/convert.cuh"
#include "kernels/cuda/common/words.cuh"
#include "quern/kernels/device_kv.h"

// A head's float32 values, kOwn neighbouring ones in each lane of a warp, as the codes of the
// cache's formats: the arithmetic of kernels/cpu/quantize_kv.cc, operation for operation.
namespace quern::kernels {

template <int kOwn>
struct KvQuantizer {
  static constexpr int kGroupLanes = kKvGroup / kOwn;

  template <typename Combine>
  __device__ static float OverGroup(float value, Combine combine) {
#pragma unroll
    for (int step = 1; step < kGroupLanes; step *= 2) {
      value = combine(value, __shfl_xor_sync(0xffffffffu, value, step));
    }
    return value;
  }
  __device__ static float GroupSum(float value) {
    return OverGroup(value, [](float a, float b) { return a + b; });
  }
  __device__ static float GroupMax(float value) {
    return OverGroup(value, [](float a, float b) { return b > a ? b : a; });
  }

  // The scale as it is stored, and its value.
  __device__ static uint16_t StoredScale(float scale, float* value) {
    const __half half = __float2half_rn(scale > 65504.0f ? 65504.0f : scale);
    *value = __half2float(half);
    return __half_as_ushort(half);
  }
  __device__ static float InverseOf(float scale) { return scale > 0 ? 1.0f / scale : 0.0f; }

  // Whether all of the group's values are finite; then its largest magnitude.
  __device__ static bool Finite(const float (&x)[kOwn], float* largest) {
    float zero = 0;
    float own = 0;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      zero += x[i] * 0.0f;
      own = fabsf(x[i]) > own ? fabsf(x[i]) : own;
    }
    *largest = GroupMax(own);
    return GroupSum(zero) == 0.0f;
  }

  __device__ static uint16_t Int8(const float (&x)[kOwn], uint32_t (&codes)[2]) {
    float largest;
    const bool finite = Finite(x, &largest);
    float scale;
    const uint16_t stored = StoredScale(largest / 127.0f, &scale);
    const float inverse = InverseOf(scale);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      float q = x[i] * inverse;
      q = q > 127.0f ? 127.0f : q;
      q = q < -127.0f ? -127.0f : q;
      const int code = finite ? static_cast<int>(q + (q < 0 ? -0.5f : 0.5f)) : 0;
      codes[i / 4] |= static_cast<uint32_t>(code & 0xff) << (i % 4 * 8);
    }
    return finite ? stored : kNanScale;
  }

  __device__ static float NearestMagnitude(float magnitude, int* index) {
    constexpr float kBorders[7] = {12.0f, 24.5f, 37.5f, 51.0f, 66.5f, 85.5f, 111.5f};
    constexpr float kLevels[8] = {6, 18, 31, 44, 58, 75, 96, 127};
    float level = kLevels[0];
    *index = 0;
#pragma unroll
    for (int i = 0; i < 7; ++i) {
      const bool above = magnitude > kBorders[i];
      *index += above ? 1 : 0;
      level = above ? kLevels[i + 1] : level;
    }
    return level;
  }

  // One code in each byte.
  __device__ static uint16_t Int4(const float (&x)[kOwn], uint32_t (&codes)[2]) {
    constexpr int kFits = 2;
    float scale;
    const bool finite = Finite(x, &scale);
    scale /= 127.0f;
#pragma unroll
    for (int fit = 0; fit < kFits; ++fit) {
      const float inverse = InverseOf(scale);
      float product = 0;
      float squares = 0;
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        int index;
        const float level = NearestMagnitude(fabsf(x[i]) * inverse, &index);
        product += fabsf(x[i]) * level;
        squares += level * level;
      }
      scale = GroupSum(product) / GroupSum(squares);
    }
    const uint16_t stored = StoredScale(scale, &scale);
    const float inverse = InverseOf(scale);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      int index;
      NearestMagnitude(fabsf(x[i]) * inverse, &index);
      const int code = finite ? (x[i] < 0 ? 7 - index : 8 + index) : 0;
      codes[i / 4] |= static_cast<uint32_t>(code) << (i % 4 * 8);
    }
    return finite ? stored : kNanScale;
  }

  // To nearest, ties to even; saturates at 448, infinities and NaN become NaN.
  __device__ static uint32_t E4m3(float x) {
    const uint32_t bits = __float_as_uint(x);
    const uint32_t sign = bits >> 24 & 0x80;
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x7f800000) return sign | 0x7f;
    const float y = __uint_as_float(magnitude);
    if (y >= 448.0f) return sign | 0x7e;
    if (y < 0x1p-6f) return sign | static_cast<uint32_t>(rintf(y * 512.0f));
    const uint32_t rounded = magnitude + 0x7ffff + (magnitude >> 20 & 1);
    return sign | ((rounded >> 20) - ((127 - 7) << 3));
  }

  static constexpr uint16_t kNanScale = 0x7e00;
};

}  // namespace quern::kernels
