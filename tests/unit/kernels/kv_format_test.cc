#include "quern/kernels/kv_format.h"

#include <algorithm>

#include "tests/unit/kernels/kernel_test_support.h"

namespace quern::kernels::testing {
namespace {

constexpr KvDtype kQuantized[] = {KvDtype::kInt8, KvDtype::kInt4};

std::vector<uint8_t> Quantize(KvDtype dtype, const std::vector<float>& x) {
  const auto dim = static_cast<int>(x.size());
  std::vector<uint8_t> groups(static_cast<size_t>(KvHeadBytes(dtype, dim)));
  QuantizeKvHead(dtype, x.data(), dim, groups.data());
  return groups;
}

std::vector<float> ThereAndBack(KvDtype dtype, const std::vector<float>& x) {
  std::vector<float> back(x.size());
  ref::DequantizeKvHead(dtype, Quantize(dtype, x).data(), static_cast<int>(x.size()), back.data());
  return back;
}

TEST(KvFormat, ScalesAndPaddingAreCounted) {
  EXPECT_EQ(KvHeadBytes(KvDtype::kF32, 64), 256);
  EXPECT_EQ(KvHeadBytes(KvDtype::kF16, 64), 128);
  EXPECT_EQ(KvHeadBytes(KvDtype::kInt8, 64), 68);
  EXPECT_EQ(KvHeadBytes(KvDtype::kInt4, 64), 36);
  EXPECT_EQ(KvHeadBytes(KvDtype::kInt8, 80), 3 * 34);
  EXPECT_EQ(KvHeadBytes(KvDtype::kInt4, 7), 18);
  EXPECT_EQ(KvTokenBytes(KvDtype::kF16, 64), 256);
  EXPECT_EQ(KvTokenBytes(KvDtype::kInt8, 64), 2 * 68);
  EXPECT_EQ(KvTokenBytes(KvDtype::kInt4, 64), 68 + 36);
}

TEST(KvFormat, Int8IsOffByHalfAStepOfItsGroupAtMost) {
  std::mt19937 random(1);
  for (const size_t dim : {7u, 20u, 64u, 80u, 256u}) {
    auto x = RandomFloats(random, dim);
    x[dim / 2] = 30;  // makes the steps of its own group larger, and of no other
    const auto back = ThereAndBack(KvDtype::kInt8, x);
    for (size_t begin = 0; begin < dim; begin += kKvGroup) {
      const size_t end = std::min<size_t>(dim, begin + kKvGroup);
      float largest = 0;
      for (size_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(x[i]));
      for (size_t i = begin; i < end; ++i) {
        ASSERT_NEAR(back[i], x[i], largest * (0.5f / 127 + 0x1p-11f)) << "of " << dim;
      }
    }
  }
}

// Max's quantiser loses 0.009497 of a normal distribution's variance, with one scale for all of it;
// a scale fitted to each group must lose less. Uniform levels lose 0.0115.
TEST(KvFormat, Int4LosesLessThanTheBestSingleQuantiserOfANormalDistribution) {
  std::mt19937 random(2);
  double error = 0;
  double power = 0;
  for (int n = 0; n < 500; ++n) {
    const auto x = RandomFloats(random, 64, static_cast<float>(1 + n % 7));
    const auto back = ThereAndBack(KvDtype::kInt4, x);
    const double variance = (1 + n % 7) * (1 + n % 7);
    for (size_t i = 0; i < x.size(); ++i) {
      error += (back[i] - x[i]) * (back[i] - x[i]) / variance;
      power += x[i] * x[i] / variance;
    }
  }
  EXPECT_LT(error / power, 0.0095);
  EXPECT_GT(error / power, 0.004);
}

TEST(KvFormat, WhatTheLevelsCanSayIsKeptExactly) {
  std::vector<float> x;
  for (int i = 0; i < 32; ++i) x.push_back(0.25f * kInt4Levels[(5 * i) % 16]);
  EXPECT_EQ(ThereAndBack(KvDtype::kInt4, x), x);
  for (float& value : x) value = std::nearbyint(value);
  x[3] = -127;
  EXPECT_EQ(ThereAndBack(KvDtype::kInt8, x), x);
}

TEST(KvFormat, ZerosStayZerosAndTinyValuesDoNotGrow) {
  for (const KvDtype dtype : kQuantized) {
    EXPECT_EQ(ThereAndBack(dtype, std::vector<float>(64)), std::vector<float>(64));
    for (const float tiny : {1e-30f, 1e-7f, 1e-5f}) {
      for (const float value : ThereAndBack(dtype, std::vector<float>(20, tiny))) {
        EXPECT_LE(std::fabs(value), 127 * 0x1p-24f + tiny);  // a step of the scale
      }
    }
  }
}

TEST(KvFormat, LargeValuesSaturateAndWhatIsNoNumberShows) {
  for (const KvDtype dtype : kQuantized) {
    std::vector<float> x(64, 1);
    x[40] = -1e30f;
    for (const float value : ThereAndBack(dtype, x)) EXPECT_TRUE(std::isfinite(value));
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      x[40] = bad;
      const auto back = ThereAndBack(dtype, x);
      EXPECT_TRUE(std::isnan(back[32]) && std::isnan(back[40]) && std::isnan(back[63]));
      EXPECT_NEAR(back[0], 1, 0.01f) << "another group";
    }
  }
}

}  // namespace
}  // namespace quern::kernels::testing
