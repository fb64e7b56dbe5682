#include "quern/kernels/numeric_types.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace quern::kernels {
namespace {

TEST(Half, EveryValueSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = HalfToFloat(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value))));
    } else {
      EXPECT_EQ(FloatToHalf(value), half);
    }
  }
}

TEST(Half, RoundsToNearestAndTiesToEven) {
  EXPECT_EQ(HalfToFloat(FloatToHalf(1.0f + 0x1p-11f)), 1.0f);            // a tie: down to even
  EXPECT_EQ(HalfToFloat(FloatToHalf(1.0f + 0x3p-11f)), 1.0f + 0x1p-9f);  // a tie: up to even
  EXPECT_EQ(HalfToFloat(FloatToHalf(1.0f + 0x1.1p-11f)), 1.0f + 0x1p-10f);
  EXPECT_EQ(HalfToFloat(FloatToHalf(0x1p-25f)), 0.0f);  // half the smallest
  EXPECT_EQ(HalfToFloat(FloatToHalf(0x1.8p-25f)), 0x1p-24f);
  EXPECT_EQ(HalfToFloat(FloatToHalf(65519.0f)), 65504.0f);
  EXPECT_TRUE(std::isinf(HalfToFloat(FloatToHalf(65520.0f))));
  EXPECT_TRUE(std::signbit(HalfToFloat(FloatToHalf(-0.0f))));
}

}  // namespace
}  // namespace quern::kernels
