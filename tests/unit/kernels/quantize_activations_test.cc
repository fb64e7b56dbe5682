#include "quern/kernels/quantize_activations.h"

#include "tests/unit/kernels/kernel_test_support.h"

namespace quern::kernels::testing {
namespace {

class QuantizeActivationsTest : public IsaTest {};
QUERN_FOR_EACH_ISA(QuantizeActivationsTest);

TEST(Bundles, CoverAllRowsOnceInEightsFoursTwosAndOnes) {
  for (int64_t rows = 1; rows < 40; ++rows) {
    int64_t next = 0;
    for (int64_t bundle = 0; bundle < NumBundles(rows); ++bundle) {
      EXPECT_EQ(BundleStart(bundle, rows), next);
      next += BundleRows(next, rows);
    }
    EXPECT_EQ(next, rows);
  }
}

TEST_P(QuantizeActivationsTest, IsWithinHalfAStepOfTheValues) {
  std::mt19937 random(3);
  for (int64_t rows : {1, 2, 3, 7, 8, 13, 16}) {
    const int64_t cols = 96;
    const auto x = RandomFloats(random, static_cast<size_t>(rows * cols), 3);
    const Quantized quantized(kernels(), x, rows, cols);
    int64_t start = 0;  // of the row's bundle
    for (int64_t row = 0; row < rows; ++row) {
      if (row == start + BundleRows(start, rows)) start = row;
      const int64_t n = BundleRows(start, rows);
      for (int64_t g = 0; g < cols / 32; ++g) {
        const auto at = static_cast<size_t>(start * cols / 32 + g * n + row - start);
        int32_t sum = 0;
        float largest = 0;
        for (int64_t k = 32 * g; k < 32 * g + 32; ++k) {
          const float value = x[static_cast<size_t>(row * cols + k)];
          const int16_t q =
              quantized
                  .q[static_cast<size_t>(start * cols + (k / 2 * n + row - start) * 2 + k % 2)];
          // Half a step, and the rounding of value * inverse.
          EXPECT_NEAR(q * quantized.scale[at], value, quantized.scale[at] * 0.51f);
          sum += q;
          largest = std::max(largest, std::fabs(value));
        }
        EXPECT_FLOAT_EQ(quantized.scale[at], largest / 32767);
        EXPECT_EQ(quantized.neg_sum[at], -sum);
        EXPECT_FLOAT_EQ(quantized.sum[at], quantized.scale[at] * static_cast<float>(sum));
      }
    }
  }
}

TEST_P(QuantizeActivationsTest, GroupsInPartsAreTheSame) {
  std::mt19937 random(5);
  const int64_t rows = 15, cols = 160;
  const auto x = RandomFloats(random, static_cast<size_t>(rows * cols));
  const Quantized whole(kernels(), x, rows, cols);
  Quantized parts(kernels(), std::vector<float>(x.size()), rows, cols);
  for (int64_t bundle = NumBundles(rows) - 1; bundle >= 0; --bundle) {
    for (int64_t group : {3, 0}) {
      kernels().quantize_activations(x.data(), cols, BundleStart(bundle, rows), group,
                                     group == 0 ? 3 : 5, parts.view);
    }
  }
  EXPECT_EQ(parts.q, whole.q);
  EXPECT_EQ(parts.scale, whole.scale);
  EXPECT_EQ(parts.sum, whole.sum);
  EXPECT_EQ(parts.neg_sum, whole.neg_sum);
}

TEST_P(QuantizeActivationsTest, ZerosAndVanishingValuesGiveZeros) {
  for (float value : {0.0f, 1e-38f, -1e-31f}) {
    const Quantized quantized(kernels(), std::vector<float>(64, value), 1, 64);
    for (int16_t q : quantized.q) EXPECT_EQ(q, 0);
    for (float scale : quantized.scale) EXPECT_EQ(scale, 0);
    for (float sum : quantized.sum) EXPECT_EQ(sum, 0);
  }
}

TEST_P(QuantizeActivationsTest, ARowDoesNotDependOnItsNeighbours) {
  std::mt19937 random(4);
  const auto x = RandomFloats(random, 5 * 64);
  const Quantized alone(kernels(), std::vector<float>(x.begin() + 4 * 64, x.end()), 1, 64);
  const Quantized among(kernels(), x, 5, 64);
  // Row 4 of five is a bundle of its own.
  for (size_t k = 0; k < 64; ++k) EXPECT_EQ(alone.q[k], among.q[4 * 64 + k]);
}

}  // namespace
}  // namespace quern::kernels::testing
