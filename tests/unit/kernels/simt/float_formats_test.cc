#include "kernels/simt/float_formats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "quern/kernels/numeric_types.h"

namespace quern::simt {
namespace {

// Half a unit in the last place decides: among all values of the format the nearest, and of two the
// even one.
uint32_t Nearest(FloatFormat format, double value, uint32_t count) {
  uint32_t best = 0;
  double distance = INFINITY;
  for (uint32_t bits = 0; bits < count; ++bits) {
    const double candidate = static_cast<double>(Widen(format, bits));
    if (!std::isfinite(candidate)) continue;
    const double away = std::fabs(candidate - value);
    if (away < distance || (away == distance && bits % 2 == 0 && best % 2 == 1)) {
      distance = away;
      best = bits;
    }
  }
  return best;
}

TEST(FloatFormats, E4m3IsReadAsDefined) {
  for (uint32_t bits = 0; bits < 256; ++bits) {
    const auto exponent = static_cast<int>(bits >> 3 & 15);
    const auto fraction = static_cast<int>(bits & 7);
    const float value = Widen(FloatFormat::kE4m3, bits);
    if ((bits & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value));
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
    EXPECT_EQ(value, static_cast<float>((bits & 0x80) != 0 ? -magnitude : magnitude)) << bits;
  }
}

TEST(FloatFormats, WidenAgreesWithTheKernelsOwnConversions) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float half = kernels::HalfToFloat(static_cast<uint16_t>(bits));
    const float mine = Widen(FloatFormat::kF16, bits);
    EXPECT_TRUE(half == mine || (std::isnan(half) && std::isnan(mine))) << bits;
    const float bf16 = kernels::Bf16ToFloat(static_cast<uint16_t>(bits));
    const float mine_too = Widen(FloatFormat::kBf16, bits);
    EXPECT_TRUE(bf16 == mine_too || (std::isnan(bf16) && std::isnan(mine_too))) << bits;
  }
}

TEST(FloatFormats, NarrowIsTheInverseOfWiden) {
  for (FloatFormat format : {FloatFormat::kF16, FloatFormat::kBf16, FloatFormat::kE4m3}) {
    const uint32_t count = format == FloatFormat::kE4m3 ? 0x100 : 0x10000;
    for (uint32_t bits = 0; bits < count; ++bits) {
      const float value = Widen(format, bits);
      if (std::isnan(value)) continue;
      EXPECT_EQ(Narrow(format, static_cast<double>(value)), bits);
    }
  }
}

TEST(FloatFormats, NarrowRoundsToNearestEven) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 200; ++i) {
    const double value = std::ldexp(std::uniform_real_distribution(0.5, 1.0)(random),
                                    static_cast<int>(random() % 24) - 12);
    EXPECT_EQ(Narrow(FloatFormat::kE4m3, value), Nearest(FloatFormat::kE4m3, value, 0x7f)) << value;
  }
  for (uint32_t bits = 0; bits < 0x7bff; bits += 37) {  // ties of binary16
    const double low = static_cast<double>(Widen(FloatFormat::kF16, bits));
    const double high = static_cast<double>(Widen(FloatFormat::kF16, bits + 1));
    EXPECT_EQ(Narrow(FloatFormat::kF16, (low + high) / 2), bits + bits % 2);
    EXPECT_EQ(Narrow(FloatFormat::kF16, std::nextafter((low + high) / 2, high)), bits + 1);
    EXPECT_EQ(Narrow(FloatFormat::kF16, std::nextafter((low + high) / 2, low)), bits);
  }
  EXPECT_EQ(Narrow(FloatFormat::kF16, 65519.99), 0x7bffu);
  EXPECT_EQ(Narrow(FloatFormat::kF16, 65520.0), 0x7c00u);
  EXPECT_EQ(Narrow(FloatFormat::kE4m3, 1e9), 0x7eu);
}

// 9 * 29 = 261 lies between bfloat16's 260 and 262. What is added decides, though float64 loses it.
TEST(FloatFormats, WhatFloat64LosesDecidesATie) {
  const auto bf16 = [](double value) {
    return static_cast<uint16_t>(Narrow(FloatFormat::kBf16, value));
  };
  const auto sum = [&](double c) {
    return Widen(FloatFormat::kBf16,
                 FusedMultiplyAdd(FloatFormat::kBf16, bf16(9), bf16(29), bf16(c)));
  };
  EXPECT_EQ(sum(0), 260.0f);
  EXPECT_EQ(sum(0x1p-100), 262.0f);
  EXPECT_EQ(sum(-0x1p-100), 260.0f);
}

TEST(FloatFormats, FusedSumsAreRoundedOnce) {
  std::mt19937_64 random(5);
  for (int i = 0; i < 20000; ++i) {
    const auto x = static_cast<uint16_t>(random());
    const auto y = static_cast<uint16_t>(random());
    const auto z = static_cast<uint16_t>(random());
    const auto widen = [](uint16_t bits) {
      return static_cast<long double>(Widen(FloatFormat::kF16, bits));
    };
    // 64 bits hold all but the most extreme sums exactly; those are left out.
    const long double exact = widen(x) * widen(y) + widen(z);
    if (!std::isfinite(exact) || exact - widen(x) * widen(y) != widen(z)) continue;
    const uint16_t got = FusedMultiplyAdd(FloatFormat::kF16, x, y, z);
    const auto value = static_cast<long double>(Widen(FloatFormat::kF16, got));
    if (std::isinf(value)) {
      EXPECT_GE(std::fabs(exact), 65520.0L);
      continue;
    }
    const auto up = static_cast<uint16_t>(got + 1);
    const auto down = static_cast<uint16_t>((got & 0x7fff) == 0 ? got : got - 1);
    EXPECT_LE(std::fabs(value - exact), std::fabs(widen(down) - exact));
    EXPECT_LE(std::fabs(value - exact), std::fabs(widen(up) - exact));
  }
}

}  // namespace
}  // namespace quern::simt
