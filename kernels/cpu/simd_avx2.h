#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/half_columns.h"

// AVX2 + FMA + F16C: 8 lanes. The contract of each operation is in simd_scalar.h.
#define QUERN_KERNEL_INLINE [[gnu::always_inline]] inline

namespace quern::kernels {
namespace {

struct Simd {
  static constexpr int kLanes = 8;
  using I = __m256i;
  using F = __m256;

  static I Load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static I LoadBytes(const void* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static I Broadcast32(const void* p) {
    int32_t value;
    std::memcpy(&value, p, sizeof(value));
    return _mm256_set1_epi32(value);
  }
  static I Zero() { return _mm256_setzero_si256(); }
  template <int kBits>
  static I ShiftRight16(I a) {
    return _mm256_srli_epi16(a, kBits);
  }
  template <int kBits>
  static I ShiftLeft16(I a) {
    return _mm256_slli_epi16(a, kBits);
  }
  static I Mask16(I a, int16_t mask) { return _mm256_and_si256(a, _mm256_set1_epi16(mask)); }
  static I Sub16(I a, int16_t value) { return _mm256_sub_epi16(a, _mm256_set1_epi16(value)); }
  static I Or(I a, I b) { return _mm256_or_si256(a, b); }
  static I JoinNibbles(I high, I low) {
    const __m256i mask = _mm256_set1_epi8(0x0f);
    return _mm256_or_si256(_mm256_andnot_si256(mask, high), _mm256_and_si256(mask, low));
  }
  template <int kBits>
  static I ShiftLeft32(I a) {
    return _mm256_slli_epi32(a, kBits);
  }
  static I DotAdd16(I acc, I a, I b) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
    // GCC 12 would move the additions of a whole group behind its products, for which there are not
    // enough registers: each product went to the stack and back, 1.6 times the time of a matmul.
    asm("" : "+x"(acc));
    return acc;
  }
  static F ToFloat(I a) { return _mm256_cvtepi32_ps(a); }
  static I ToInt(F a) { return _mm256_cvtps_epi32(a); }
  static void StoreInt16(int16_t* p, I a) {
    const __m128i packed =
        _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
  }
  static int32_t SumInt(I a) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
  }
  static I Add32(I a, I b) { return _mm256_add_epi32(a, b); }

  static F Set(float value) { return _mm256_set1_ps(value); }
  static F LoadF(const float* p) { return _mm256_loadu_ps(p); }
  static void StoreF(float* p, F f) { _mm256_storeu_ps(p, f); }
  static F LoadHalf(const void* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  static void StoreHalf(uint16_t* p, F f) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(f, _MM_FROUND_TO_NEAREST_INT));
  }
  static float Half(const void* p) {
    uint16_t raw;
    std::memcpy(&raw, p, sizeof(raw));
    return _cvtsh_ss(raw);
  }
  static void StoreLookedUp(const uint8_t* p, const int8_t* table, F scale, float* y) {
    const __m128i levels = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    const __m128i mask = _mm_set1_epi8(15);
    const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m128i low = _mm_shuffle_epi8(levels, _mm_and_si128(raw, mask));
    const __m128i high = _mm_shuffle_epi8(levels, _mm_and_si128(_mm_srli_epi16(raw, 4), mask));
    const auto store = [scale](__m128i bytes, float* to) {
      StoreF(to, Mul(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))));
    };
    store(low, y);
    store(_mm_srli_si128(low, 8), y + 8);
    store(high, y + 16);
    store(_mm_srli_si128(high, 8), y + 24);
  }
  static F LoadBf16(const void* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  static F LoadUnsigned8(const void* p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
  }
  static F LoadSigned8(const void* p) {
    return _mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64(static_cast<const __m128i*>(p))));
  }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F Add(F a, F b) { return _mm256_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm256_div_ps(a, b); }
  static F Max(F a, F b) { return _mm256_max_ps(a, b); }
  static F Min(F a, F b) { return _mm256_min_ps(a, b); }
  static F Abs(F a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
  static F Round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F PowerOfTwo(F n) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
  }
  static float Sum(F a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
  }
  static float MaxOf(F a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    s = _mm_max_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
  }
  template <int kDistance>
  static F SwapLanes(F a) {
    if constexpr (kDistance == 4) return _mm256_permute2f128_ps(a, a, 0x01);
    return _mm256_permute_ps(a, kDistance == 1 ? 0xb1 : 0x4e);
  }
  static F LoadDoubled(const float* p) {
    const __m256 four = _mm256_castps128_ps256(_mm_loadu_ps(p));
    return _mm256_permutevar8x32_ps(four, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
  }
  static void TransposeHalves(const uint16_t* x, int64_t x_stride, float* y, int64_t y_stride) {
    __m128i columns[8];
    HalfColumns(x, x_stride, columns);
    for (int i = 0; i < 8; ++i) StoreF(y + i * y_stride, _mm256_cvtph_ps(columns[i]));
  }
  static void Transpose(const float* x, int64_t x_stride, float* y, int64_t y_stride) {
    F pairs[8], fours[8];
    for (int i = 0; i < 8; i += 2) {
      const F a = LoadF(x + i * x_stride);
      const F b = LoadF(x + (i + 1) * x_stride);
      pairs[i] = _mm256_unpacklo_ps(a, b);
      pairs[i + 1] = _mm256_unpackhi_ps(a, b);
    }
    for (int i = 0; i < 8; i += 4) {
      fours[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
      fours[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
      fours[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
      fours[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
      StoreF(y + i * y_stride, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20));
      StoreF(y + (i + 4) * y_stride, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31));
    }
  }
  static F AddSub(F c, F ab) { return _mm256_addsub_ps(c, ab); }
};

}  // namespace
}  // namespace quern::kernels
