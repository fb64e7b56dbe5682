#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "quern/kernels/numeric_types.h"

// The vector operations that the kernels are written in, as plain loops over 8 lanes: the contract
// for simd_avx2.h and simd_avx512.h, and what runs on a processor with neither. `I` holds 32-bit
// lanes, each also seen as two of 16.
// Without vectors, inlining buys no speed and minutes of compiling.
#define QUERN_KERNEL_INLINE [[gnu::noinline]]

namespace quern::kernels {
namespace {

struct Simd {
  static constexpr int kLanes = 8;
  struct I {
    int32_t v[kLanes];
  };
  struct F {
    float v[kLanes];
  };

  template <typename Op>
  static I Map16(I a, Op op) {
    uint16_t lanes[2 * kLanes];
    std::memcpy(lanes, &a, sizeof(a));
    for (auto& lane : lanes) lane = static_cast<uint16_t>(op(lane));
    std::memcpy(&a, lanes, sizeof(a));
    return a;
  }
  template <typename Op>
  static F Map(F a, F b, Op op) {
    for (int i = 0; i < kLanes; ++i) a.v[i] = op(a.v[i], b.v[i]);
    return a;
  }

  static I Load(const void* p) {
    I a;
    std::memcpy(&a, p, sizeof(a));
    return a;
  }
  // 2 x kLanes signed bytes to 16-bit lanes.
  static I LoadBytes(const void* p) {
    int8_t bytes[2 * kLanes];
    int16_t lanes[2 * kLanes];
    std::memcpy(bytes, p, sizeof(bytes));
    for (int i = 0; i < 2 * kLanes; ++i) lanes[i] = bytes[i];
    return Load(lanes);
  }
  static I Broadcast32(const void* p) {
    int32_t value;
    std::memcpy(&value, p, sizeof(value));
    return Set32(value);
  }
  static I Set32(int32_t value) {
    I a;
    for (auto& lane : a.v) lane = value;
    return a;
  }
  static I Zero() { return Set32(0); }
  template <int kBits>
  static I ShiftRight16(I a) {
    return Map16(a, [](uint16_t lane) { return lane >> kBits; });
  }
  template <int kBits>
  static I ShiftLeft16(I a) {
    return Map16(a, [](uint16_t lane) { return lane << kBits; });
  }
  static I Mask16(I a, int16_t mask) {
    return Map16(a, [mask](uint16_t lane) { return lane & mask; });
  }
  static I Sub16(I a, int16_t value) {
    return Map16(a, [value](uint16_t lane) { return lane - value; });
  }
  static I Or(I a, I b) {
    for (int i = 0; i < kLanes; ++i) a.v[i] |= b.v[i];
    return a;
  }
  // Of every byte, the upper half of `high`'s and the lower half of `low`'s.
  static I JoinNibbles(I high, I low) {
    for (int i = 0; i < kLanes; ++i) {
      high.v[i] = static_cast<int32_t>((static_cast<uint32_t>(high.v[i]) & 0xf0f0f0f0u) |
                                       (static_cast<uint32_t>(low.v[i]) & 0x0f0f0f0fu));
    }
    return high;
  }
  template <int kBits>
  static I ShiftLeft32(I a) {
    for (auto& lane : a.v) lane = static_cast<int32_t>(static_cast<uint32_t>(lane) << kBits);
    return a;
  }
  // acc + a.lo * b.lo + a.hi * b.hi in every 32-bit lane.
  static I DotAdd16(I acc, I a, I b) {
    for (int i = 0; i < kLanes; ++i) {
      acc.v[i] += static_cast<int16_t>(a.v[i]) * static_cast<int16_t>(b.v[i]) +
                  (a.v[i] >> 16) * (b.v[i] >> 16);
    }
    return acc;
  }
  static F ToFloat(I a) {
    F f;
    for (int i = 0; i < kLanes; ++i) f.v[i] = static_cast<float>(a.v[i]);
    return f;
  }
  // Rounded to the nearest integer.
  static I ToInt(F a) {
    I result;
    for (int i = 0; i < kLanes; ++i) result.v[i] = static_cast<int32_t>(std::nearbyintf(a.v[i]));
    return result;
  }
  // 32-bit lanes, all within int16's range, to 16-bit in memory.
  static void StoreInt16(int16_t* p, I a) {
    for (int i = 0; i < kLanes; ++i) p[i] = static_cast<int16_t>(a.v[i]);
  }
  static int32_t SumInt(I a) {
    int32_t sum = 0;
    for (int32_t lane : a.v) sum += lane;
    return sum;
  }
  static I Add32(I a, I b) {
    for (int i = 0; i < kLanes; ++i) a.v[i] += b.v[i];
    return a;
  }

  static F Set(float value) {
    F f;
    for (auto& lane : f.v) lane = value;
    return f;
  }
  static F LoadF(const float* p) {
    F f;
    std::memcpy(&f, p, sizeof(f));
    return f;
  }
  static void StoreF(float* p, F f) { std::memcpy(p, &f, sizeof(f)); }
  static F LoadHalf(const void* p) {
    uint16_t raw[kLanes];
    std::memcpy(raw, p, sizeof(raw));
    F f;
    for (int i = 0; i < kLanes; ++i) f.v[i] = HalfToFloat(raw[i]);
    return f;
  }
  static void StoreHalf(uint16_t* p, F f) {
    for (int i = 0; i < kLanes; ++i) p[i] = FloatToHalf(f.v[i]);
  }
  static float Half(const void* p) {
    uint16_t raw;
    std::memcpy(&raw, p, sizeof(raw));
    return HalfToFloat(raw);
  }
  // 32 floats: scale * table[low four bits] of 16 bytes, then of the high ones.
  static void StoreLookedUp(const uint8_t* p, const int8_t* table, F scale, float* y) {
    for (int i = 0; i < 16; ++i) {
      y[i] = scale.v[0] * static_cast<float>(table[p[i] & 15]);
      y[i + 16] = scale.v[0] * static_cast<float>(table[p[i] >> 4]);
    }
  }
  static F LoadBf16(const void* p) {
    uint16_t raw[kLanes];
    std::memcpy(raw, p, sizeof(raw));
    F f;
    for (int i = 0; i < kLanes; ++i) f.v[i] = Bf16ToFloat(raw[i]);
    return f;
  }
  static F LoadUnsigned8(const void* p) {
    F f;
    for (int i = 0; i < kLanes; ++i) f.v[i] = static_cast<float>(static_cast<const uint8_t*>(p)[i]);
    return f;
  }
  static F LoadSigned8(const void* p) {
    F f;
    for (int i = 0; i < kLanes; ++i) f.v[i] = static_cast<float>(static_cast<const int8_t*>(p)[i]);
    return f;
  }
  static F Fma(F a, F b, F c) {
    for (int i = 0; i < kLanes; ++i) c.v[i] += a.v[i] * b.v[i];
    return c;
  }
  static F Add(F a, F b) {
    return Map(a, b, [](float x, float y) { return x + y; });
  }
  static F Sub(F a, F b) {
    return Map(a, b, [](float x, float y) { return x - y; });
  }
  static F Mul(F a, F b) {
    return Map(a, b, [](float x, float y) { return x * y; });
  }
  static F Div(F a, F b) {
    return Map(a, b, [](float x, float y) { return x / y; });
  }
  // As the x86 instructions do: b where either is NaN.
  static F Max(F a, F b) {
    return Map(a, b, [](float x, float y) { return x > y ? x : y; });
  }
  static F Min(F a, F b) {
    return Map(a, b, [](float x, float y) { return x < y ? x : y; });
  }
  static F Abs(F a) {
    for (auto& lane : a.v) lane = std::fabs(lane);
    return a;
  }
  static F Round(F a) {
    for (auto& lane : a.v) lane = std::nearbyintf(lane);
    return a;
  }
  // 2^n of whole n in [-126, 127].
  static F PowerOfTwo(F n) {
    for (auto& lane : n.v) {
      const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(lane) + 127) << 23;
      std::memcpy(&lane, &bits, sizeof(lane));
    }
    return n;
  }
  static float Sum(F a) {
    float sum = 0;
    for (float lane : a.v) sum += lane;
    return sum;
  }
  static float MaxOf(F a) {
    float largest = a.v[0];
    for (float lane : a.v) largest = lane > largest ? lane : largest;
    return largest;
  }
  // Lane i gets lane i ^ kDistance, a power of two.
  template <int kDistance>
  static F SwapLanes(F a) {
    F swapped;
    for (int i = 0; i < kLanes; ++i) swapped.v[i] = a.v[i ^ kDistance];
    return swapped;
  }
  // Half as many values, each doubled: (p0, p0, p1, p1, ...).
  static F LoadDoubled(const float* p) {
    F f;
    for (int i = 0; i < kLanes; ++i) f.v[i] = p[i / 2];
    return f;
  }
  // y[i][j] = x[j][i] of kLanes x kLanes floats.
  static void Transpose(const float* x, int64_t x_stride, float* y, int64_t y_stride) {
    for (int i = 0; i < kLanes; ++i) {
      for (int j = 0; j < kLanes; ++j) y[i * y_stride + j] = x[j * x_stride + i];
    }
  }
  // y[i][j] = x[j][i] of kLanes rows of 8 halves.
  static void TransposeHalves(const uint16_t* x, int64_t x_stride, float* y, int64_t y_stride) {
    for (int i = 0; i < 8; ++i) {
      for (int j = 0; j < kLanes; ++j) y[i * y_stride + j] = HalfToFloat(x[j * x_stride + i]);
    }
  }
  // a * b with the product subtracted from c in even lanes and added in odd ones: (c - ab, c + ab,
  // ...).
  static F AddSub(F c, F ab) {
    for (int i = 0; i < kLanes; ++i) c.v[i] += i % 2 == 0 ? -ab.v[i] : ab.v[i];
    return c;
  }
};

}  // namespace
}  // namespace quern::kernels
