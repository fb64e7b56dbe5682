#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "quern/kernels/row_output.h"

namespace quern::kernels::testing {

// OCP 8-bit floating point E4M3: four bits of exponent with bias 7, three of mantissa.
inline double E4m3Value(uint8_t code) {
  const int exponent = code >> 3 & 15;
  const int mantissa = code & 7;
  if ((code & 0x7f) == 0x7f) return NAN;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

// How far a row's codes and its scale are off, over what they may be at most: half a code's step,
// and `errors` of each value before it was quantised. The scale and the factor to codes have a
// rounding each, and so has the product.
inline double RowCodesError(RowOutput output, const std::vector<float>& exact,
                            const std::vector<double>& errors, double scale, const uint8_t* codes) {
  constexpr double kRoundings = 3 * 0x1p-24;
  const bool int8 = output == RowOutput::kInt8;
  double largest = 0;
  double largest_error = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    largest = std::max(largest, std::fabs(double{exact[i]}));
    largest_error = std::max(largest_error, errors[i]);
  }
  if (largest == 0) {
    const bool zero = std::all_of(codes, codes + exact.size(), [](uint8_t c) { return c == 0; });
    return zero && scale == 0 ? 0 : INFINITY;
  }
  const double most = int8 ? 127 : 448;
  double worst = std::fabs(scale - largest / most) * most / (largest_error + kRoundings * largest);
  for (size_t i = 0; i < exact.size(); ++i) {
    const double target = exact[i] / scale;
    const double before = errors[i] / scale + std::fabs(target) * kRoundings;
    const double code = int8 ? static_cast<int8_t>(codes[i]) : E4m3Value(codes[i]);
    const double step = int8 ? 1 : std::ldexp(1, std::max(std::ilogb(target), -6) - 3);
    const double ratio = std::fabs(code - target) / (step / 2 + before);
    worst = std::isnan(ratio) ? INFINITY : std::max(worst, ratio);
  }
  return std::isnan(worst) ? INFINITY : worst;
}

}  // namespace quern::kernels::testing
