#pragma once

#include <immintrin.h>

#include <cstdint>

namespace quern::kernels {
namespace {

// The columns of 8 rows of 8 halves.
inline void HalfColumns(const uint16_t* x, int64_t x_stride, __m128i* columns) {
  __m128i pairs[8], fours[8];
  for (int i = 0; i < 8; i += 2) {
    const auto row = [&](int r) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + r * x_stride));
    };
    pairs[i] = _mm_unpacklo_epi16(row(i), row(i + 1));
    pairs[i + 1] = _mm_unpackhi_epi16(row(i), row(i + 1));
  }
  for (int i = 0; i < 8; i += 4) {
    fours[i] = _mm_unpacklo_epi32(pairs[i], pairs[i + 2]);
    fours[i + 1] = _mm_unpackhi_epi32(pairs[i], pairs[i + 2]);
    fours[i + 2] = _mm_unpacklo_epi32(pairs[i + 1], pairs[i + 3]);
    fours[i + 3] = _mm_unpackhi_epi32(pairs[i + 1], pairs[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    columns[2 * i] = _mm_unpacklo_epi64(fours[i], fours[i + 4]);
    columns[2 * i + 1] = _mm_unpackhi_epi64(fours[i], fours[i + 4]);
  }
}

}  // namespace
}  // namespace quern::kernels
