#include "kernels/simt/float_formats.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace quern::simt {
namespace {

struct Shape {
  int mantissa_bits;
  int min_exponent;  // of normal numbers
  int sign_bit;
  double limit;  // from which on all is infinite
  uint32_t infinity;
  uint32_t nan;
};

constexpr Shape ShapeOf(FloatFormat format) {
  switch (format) {
    case FloatFormat::kF16:
      return {10, -14, 15, 0x1p16, 0x7c00, 0x7fff};
    case FloatFormat::kBf16:
      return {7, -126, 15, 0x1p128, 0x7f80, 0x7fff};
    case FloatFormat::kE4m3:
      return {3, -6, 7, 0x1p9, 0x7e, 0x7f};  // no infinity: 448, the largest, stands in
  }
  return {};
}

// A sum of doubles rounded to odd, so that a second rounding to fewer than 51 bits is right
// (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums").
double SumToOdd(double a, double b) {
  const double sum = a + b;
  if (!std::isfinite(sum)) return sum;
  const double b_part = sum - a;  // Knuth's two-sum
  const double rest = (a - (sum - b_part)) + (b - b_part);
  auto bits = std::bit_cast<uint64_t>(sum);
  if (rest == 0 || (bits & 1) != 0) return sum;
  // Away from zero if the rest is, else towards it: both neighbours are odd.
  bits += (rest > 0) == (sum > 0) ? 1 : -1;
  return std::bit_cast<double>(bits);
}

}  // namespace

uint32_t Narrow(FloatFormat format, double value) {
  const Shape shape = ShapeOf(format);
  if (std::isnan(value)) return shape.nan;
  const uint32_t sign = std::signbit(value) ? 1u << shape.sign_bit : 0;
  const double magnitude = std::fabs(value);
  if (magnitude >= shape.limit) return sign | shape.infinity;
  const auto raw = static_cast<int>(std::bit_cast<uint64_t>(magnitude) >> 52) - 1023;
  const int exponent = std::max(raw, shape.min_exponent);
  // Adding and taking away 1.5 * 2^52 last places rounds to a whole number of them.
  const double magic =
      0x1.8p52 *
      std::bit_cast<double>(static_cast<uint64_t>(exponent - shape.mantissa_bits + 1023) << 52);
  const double rounded = (magnitude + magic) - magic;
  const double unit = magic / 0x1.8p52;
  // In last places of the exponent's binade; carrying into the next one is what the bits do, too.
  const auto places = static_cast<uint32_t>(rounded / unit);
  const uint32_t bits =
      places + (static_cast<uint32_t>(exponent - shape.min_exponent) << shape.mantissa_bits);
  return sign | std::min(bits, shape.infinity);
}

uint16_t FusedMultiplyAdd(FloatFormat format, uint16_t a, uint16_t b, uint16_t c) {
  const double product = static_cast<double>(Widen(format, a)) * Widen(format, b);  // exact
  return static_cast<uint16_t>(Narrow(format, SumToOdd(product, Widen(format, c))));
}

uint16_t Add(FloatFormat format, uint16_t a, uint16_t b) {
  return static_cast<uint16_t>(Narrow(format, SumToOdd(Widen(format, a), Widen(format, b))));
}

uint16_t Multiply(FloatFormat format, uint16_t a, uint16_t b) {
  return static_cast<uint16_t>(
      Narrow(format, static_cast<double>(Widen(format, a)) * Widen(format, b)));
}

}  // namespace quern::simt
