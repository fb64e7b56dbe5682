#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/half_columns.h"

// AVX-512 F, BW, VL, DQ, VNNI: 16 lanes. The contract of each operation is in simd_scalar.h.
#define QUERN_KERNEL_INLINE [[gnu::always_inline]] inline

namespace quern::kernels {
namespace {

struct Simd {
  static constexpr int kLanes = 16;
  using I = __m512i;
  using F = __m512;

  static I Load(const void* p) { return _mm512_loadu_si512(p); }
  static I LoadBytes(const void* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  static I Broadcast32(const void* p) {
    int32_t value;
    std::memcpy(&value, p, sizeof(value));
    return _mm512_set1_epi32(value);
  }
  static I Zero() { return _mm512_setzero_si512(); }
  template <int kBits>
  static I ShiftRight16(I a) {
    return _mm512_srli_epi16(a, kBits);
  }
  template <int kBits>
  static I ShiftLeft16(I a) {
    return _mm512_slli_epi16(a, kBits);
  }
  static I Mask16(I a, int16_t mask) { return _mm512_and_si512(a, _mm512_set1_epi16(mask)); }
  static I Sub16(I a, int16_t value) { return _mm512_sub_epi16(a, _mm512_set1_epi16(value)); }
  static I Or(I a, I b) { return _mm512_or_si512(a, b); }
  static I JoinNibbles(I high, I low) {
    constexpr int kSelect =
        0xca;  // the first's bits where they are set: the second's, or the third's
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8(static_cast<char>(0xf0)), high, low, kSelect);
  }
  template <int kBits>
  static I ShiftLeft32(I a) {
    return _mm512_slli_epi32(a, kBits);
  }
  static I DotAdd16(I acc, I a, I b) { return _mm512_dpwssd_epi32(acc, a, b); }
  static F ToFloat(I a) { return _mm512_cvtepi32_ps(a); }
  static I ToInt(F a) { return _mm512_cvtps_epi32(a); }
  static void StoreInt16(int16_t* p, I a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(a));
  }
  static int32_t SumInt(I a) { return _mm512_reduce_add_epi32(a); }
  static I Add32(I a, I b) { return _mm512_add_epi32(a, b); }

  static F Set(float value) { return _mm512_set1_ps(value); }
  static F LoadF(const float* p) { return _mm512_loadu_ps(p); }
  static void StoreF(float* p, F f) { _mm512_storeu_ps(p, f); }
  static F LoadHalf(const void* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  }
  static void StoreHalf(uint16_t* p, F f) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(f, _MM_FROUND_TO_NEAREST_INT));
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
    StoreF(y, Mul(scale, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(low))));
    StoreF(y + 16, Mul(scale, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(high))));
  }
  static F LoadBf16(const void* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static F LoadUnsigned8(const void* p) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepu8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
  }
  static F LoadSigned8(const void* p) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))));
  }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  static F Abs(F a) { return _mm512_abs_ps(a); }
  static F Round(F a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static F PowerOfTwo(F n) {
    const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
  }
  static float Sum(F a) { return _mm512_reduce_add_ps(a); }
  static float MaxOf(F a) { return _mm512_reduce_max_ps(a); }
  template <int kDistance>
  static F SwapLanes(F a) {
    if constexpr (kDistance == 8) return _mm512_shuffle_f32x4(a, a, 0x4e);
    if constexpr (kDistance == 4) return _mm512_shuffle_f32x4(a, a, 0xb1);
    return _mm512_permute_ps(a, kDistance == 1 ? 0xb1 : 0x4e);
  }
  static F LoadDoubled(const float* p) {
    const __m512 eight = _mm512_castps256_ps512(_mm256_loadu_ps(p));
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7),
                                 eight);
  }
  static void TransposeHalves(const uint16_t* x, int64_t x_stride, float* y, int64_t y_stride) {
    __m128i low[8], high[8];
    HalfColumns(x, x_stride, low);
    HalfColumns(x + 8 * x_stride, x_stride, high);
    for (int i = 0; i < 8; ++i) {
      StoreF(y + i * y_stride, _mm512_cvtph_ps(_mm256_set_m128i(high[i], low[i])));
    }
  }
  static void Transpose(const float* x, int64_t x_stride, float* y, int64_t y_stride) {
    F pairs[16], fours[16], eights[16];
    for (int i = 0; i < 16; i += 2) {
      const F a = LoadF(x + i * x_stride);
      const F b = LoadF(x + (i + 1) * x_stride);
      pairs[i] = _mm512_unpacklo_ps(a, b);
      pairs[i + 1] = _mm512_unpackhi_ps(a, b);
    }
    for (int i = 0; i < 16; i += 4) {
      fours[i] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
      fours[i + 1] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
      fours[i + 2] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
      fours[i + 3] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
    // Quarter q of fours[4 g + i] holds column 4 q + i of rows 4 g ... 4 g + 3.
    for (int i = 0; i < 4; ++i) {
      eights[i] = _mm512_shuffle_f32x4(fours[i], fours[4 + i], 0x88);
      eights[4 + i] = _mm512_shuffle_f32x4(fours[i], fours[4 + i], 0xdd);
      eights[8 + i] = _mm512_shuffle_f32x4(fours[8 + i], fours[12 + i], 0x88);
      eights[12 + i] = _mm512_shuffle_f32x4(fours[8 + i], fours[12 + i], 0xdd);
    }
    for (int i = 0; i < 4; ++i) {
      StoreF(y + i * y_stride, _mm512_shuffle_f32x4(eights[i], eights[8 + i], 0x88));
      StoreF(y + (4 + i) * y_stride, _mm512_shuffle_f32x4(eights[4 + i], eights[12 + i], 0x88));
      StoreF(y + (8 + i) * y_stride, _mm512_shuffle_f32x4(eights[i], eights[8 + i], 0xdd));
      StoreF(y + (12 + i) * y_stride, _mm512_shuffle_f32x4(eights[4 + i], eights[12 + i], 0xdd));
    }
  }
  static F AddSub(F c, F ab) { return _mm512_fmaddsub_ps(c, _mm512_set1_ps(1.0f), ab); }
};

}  // namespace
}  // namespace quern::kernels
