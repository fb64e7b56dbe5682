#include "quern/kernels/head_screen.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "quern/kernels/numeric_types.h"

namespace quern::kernels {

void BoundLowHalves(const QuantizedActivations& x, int64_t row, const LowHalfBounds& bounds) {
  const int64_t start = BundleStartOf(row, x.rows);
  const int n = BundleRows(start, x.rows);
  const int64_t groups = x.cols / 32;
  for (int64_t g = 0; g < groups; ++g) {
    int32_t sum = 0;
    int32_t positive = 0;
    for (int64_t pair = 16 * g; pair < 16 * g + 16; ++pair) {
      const int16_t* q = x.q + start * x.cols + (pair * n + row - start) * 2;
      for (int h = 0; h < 2; ++h) {
        sum += q[h];
        positive += std::max<int32_t>(q[h], 0);
      }
    }
    const float scale = x.scale[start * groups + g * n + row - start];
    bounds.greatest[g] = 15 * positive - 128 * sum;
    bounds.low_greatest[g] = 15 * positive;
    bounds.half_range[g] = scale * 7.5f * static_cast<float>(2 * positive - sum);
  }
}

bool RaiseGreatestScales(const PackedMatrix& matrix, const uint8_t* memory, int64_t tile_begin,
                         int64_t tile_end, float* greatest) {
  const int64_t groups = matrix.cols / 32;
  bool fits = true;
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    const uint8_t* scales = memory + matrix.high_offset(tile);
    for (int64_t g = 0; g < groups; ++g) {
      // Halves that are not negative are in the order of their bits.
      uint16_t most = 0;
      for (int r = 0; r < matrix.lanes; ++r) {
        uint16_t bits;
        std::memcpy(&bits, scales + (g * matrix.lanes + r) * 2, 2);
        most = std::max(most, bits);
      }
      constexpr uint16_t kInfinity = 0x7c00;
      fits = fits && most < kInfinity;
      greatest[g] = std::max(greatest[g], HalfToFloat(most));
    }
  }
  return fits;
}

bool ScreenMargin(const LowHalfBounds& bounds, const float* greatest_scales, int64_t groups,
                  float* margin) {
  constexpr double kFarFromInfinity = 1e30;
  double sum = 0;  // of d s (sum of |q|), at most
  for (int64_t g = 0; g < groups; ++g) {
    sum += double{greatest_scales[g]} * bounds.half_range[g] / 7.5;
  }
  const double most = 143 * sum;
  // What is rounded to less than float32's precision, as it is so small, comes on top.
  *margin = static_cast<float>(8 * static_cast<double>(groups + 2) * 0x1p-24 * most) +
            std::numeric_limits<float>::min();
  return most > 0 && most < kFarFromInfinity;
}

}  // namespace quern::kernels
