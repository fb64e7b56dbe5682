#include <fstream>

#include "tests/unit/kernels/kernel_test_support.h"

namespace quern::kernels::testing {
namespace {

// What another implementation makes of the same blocks:
// tests/recordings/kernels/make_dequantize.py.
TEST(Dequantize, GivesWhatTheGgufPackageGives) {
  std::ifstream file(std::string(QUERN_TESTS_DIR) + "/recordings/kernels/dequantize.bin",
                     std::ios::binary);
  ASSERT_TRUE(file) << "run from the checkout's root";
  int types = 0;
  uint32_t head[2];
  while (file.read(reinterpret_cast<char*>(head), sizeof(head))) {
    std::vector<char> blocks(head[1]);
    std::vector<float> expected(256);
    std::vector<float> got(256);
    file.read(blocks.data(), head[1]);
    file.read(reinterpret_cast<char*>(expected.data()), 256 * sizeof(float));
    const auto type = static_cast<WeightType>(head[0]);
    ref::DequantizeRow(type, blocks.data(), 256, got.data());
    for (size_t i = 0; i < 256; ++i) {
      // Both round products of two or three factors, perhaps in another order.
      const float tolerance = 4e-7f * (std::fabs(expected[i]) + 64);
      EXPECT_NEAR(got[i], expected[i], tolerance) << FindWeightTypeInfo(type)->name << " " << i;
    }
    ++types;
  }
  EXPECT_EQ(types, 8);
}

TEST(Dequantize, ReadsFloatTypesExactly) {
  const float values[] = {0, -1.5f, 65504, 3.0517578125e-05f};
  uint16_t halves[4];
  for (int i = 0; i < 4; ++i) halves[i] = FloatToHalf(values[i]);
  float got[4];
  ref::DequantizeRow(WeightType::kF16, halves, 4, got);
  EXPECT_EQ(std::memcmp(got, values, sizeof(got)), 0);
  ref::DequantizeRow(WeightType::kF32, values, 4, got);
  EXPECT_EQ(std::memcmp(got, values, sizeof(got)), 0);
  const uint16_t bf16[] = {0x3fc0, 0xc000, 0x0000, 0x4780};
  ref::DequantizeRow(WeightType::kBF16, bf16, 4, got);
  EXPECT_EQ(got[0], 1.5f);
  EXPECT_EQ(got[1], -2.0f);
  EXPECT_EQ(got[3], 65536.0f);
}

TEST(Dequantize, KnowsEveryTypeThatItLists) {
  for (WeightType type : kAllWeightTypes) EXPECT_NE(FindWeightTypeInfo(type), nullptr);
  EXPECT_EQ(FindWeightTypeInfo(static_cast<WeightType>(10)), nullptr);  // Q2_K
}

}  // namespace
}  // namespace quern::kernels::testing
