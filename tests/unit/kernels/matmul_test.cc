#include "quern/kernels/matmul.h"

#include "tests/unit/kernels/kernel_test_support.h"

namespace quern::kernels::testing {
namespace {

class MatMulTest : public IsaTest {
 protected:
  // Runs tiles in two parts, as two threads would.
  std::vector<float> Run(const Packed& weight, const std::vector<float>& x, int64_t rows) const {
    const PackedMatrix& w = weight.matrix;
    std::vector<float> y(static_cast<size_t>(rows * (w.rows + 3)), kUntouched);
    const bool floats = IsFloatType(w.type);
    const int64_t cols = w.cols;
    const Quantized quantized(kernels(), floats ? std::vector<float>() : x, floats ? 0 : rows,
                              cols);
    const MatMulArgs args{&w, &quantized.view, x.data(), cols, rows, y.data(), w.rows + 3};
    kernels().matmul(args, w.tiles() / 2, w.tiles());
    kernels().matmul(args, 0, w.tiles() / 2);
    return y;
  }
  static constexpr float kUntouched = 12345;
};
QUERN_FOR_EACH_ISA(MatMulTest);

TEST_P(MatMulTest, AgreesWithTheReferenceAtEveryShape) {
  std::mt19937 random(5);
  for (WeightType type : kAllWeightTypes) {
    for (int64_t out : {1, 8, 19, 40}) {
      for (int64_t cols : {256, 768}) {
        const auto source = RandomWeights(random, type, out, cols);
        const Packed weight = Pack(type, kernels().lanes, out, cols, source);
        for (int64_t rows : {1, 2, 3, 5, 8, 15, 131}) {
          if (rows == 131 && out != 19) continue;
          const auto x = RandomFloats(random, static_cast<size_t>(rows * cols));
          std::vector<float> expected(static_cast<size_t>(rows * out));
          ref::MatMul(type, source.data(), out, cols, x.data(), rows, expected.data());
          const auto y = Run(weight, x, rows);
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t c = 0; c < out; ++c) {
              const double tolerance = MatMulTolerance(type, source, c, cols, x.data() + r * cols);
              ASSERT_NEAR(y[static_cast<size_t>(r * (out + 3) + c)],
                          expected[static_cast<size_t>(r * out + c)], tolerance)
                  << FindWeightTypeInfo(type)->name << " " << out << " x " << cols << ", row " << r
                  << " of " << rows << ", column " << c;
            }
            for (int64_t c = out; c < out + 3; ++c) {
              ASSERT_EQ(y[static_cast<size_t>(r * (out + 3) + c)], kUntouched)
                  << "written beyond the weight's rows";
            }
          }
        }
      }
    }
  }
}

TEST_P(MatMulTest, TakesFloatWeightsOfAnyWidth) {
  std::mt19937 random(6);
  for (WeightType type : {WeightType::kF32, WeightType::kF16, WeightType::kBF16}) {
    for (int64_t cols : {1, 3, 10, 33}) {
      const auto source = RandomWeights(random, type, 9, cols);
      const Packed weight = Pack(type, kernels().lanes, 9, cols, source);
      const auto x = RandomFloats(random, static_cast<size_t>(3 * cols));
      std::vector<float> expected(27);
      ref::MatMul(type, source.data(), 9, cols, x.data(), 3, expected.data());
      const auto y = Run(weight, x, 3);
      for (size_t r = 0; r < 3; ++r) {
        for (size_t c = 0; c < 9; ++c) EXPECT_NEAR(y[r * 12 + c], expected[r * 9 + c], 1e-5);
      }
    }
  }
}

// A request's tokens must not depend on who else is in the batch.
TEST_P(MatMulTest, ARowHasTheSameBitsWhateverTheBatch) {
  std::mt19937 random(7);
  for (WeightType type : kAllWeightTypes) {
    const auto source = RandomWeights(random, type, 24, 512);
    const Packed weight = Pack(type, kernels().lanes, 24, 512, source);
    const auto x = RandomFloats(random, 15 * 512);
    const auto together = Run(weight, x, 15);
    for (size_t r : {0u, 7u, 8u, 11u, 13u, 14u}) {
      const auto alone = Run(weight,
                             std::vector<float>(x.begin() + static_cast<long>(r * 512),
                                                x.begin() + static_cast<long>((r + 1) * 512)),
                             1);
      EXPECT_EQ(std::memcmp(alone.data(), together.data() + r * 27, 24 * sizeof(float)), 0)
          << FindWeightTypeInfo(type)->name << ", row " << r;
    }
  }
}

TEST_P(MatMulTest, PlanesGiveTheSameBits) {
  std::mt19937 random(9);
  for (const int64_t out : {1, 16, 19, 40}) {
    for (const int64_t cols : {32, 96, 640}) {
      const auto source = RandomWeights(random, WeightType::kQ8_0, out, cols);
      const Packed together = Pack(WeightType::kQ8_0, kernels().lanes, out, cols, source);
      const Packed planes = PackPlanes(kernels().lanes, out, cols, source);
      for (const int64_t rows : {1, 2, 3, 5, 8, 15}) {
        auto x = RandomFloats(random, static_cast<size_t>(rows * cols), 100);
        x[0] = 1e6f;
        const auto y = Run(planes, x, rows);
        const auto expected = Run(together, x, rows);
        ASSERT_EQ(std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)), 0)
            << out << " x " << cols << ", " << rows << " rows";
      }
    }
  }
}

// The largest weights and activations there are: 32 x 128 x 32767 still fits the 32-bit sums.
TEST_P(MatMulTest, ExtremesDoNotOverflow) {
  std::vector<uint8_t> source(34);
  PutHalf(source.data(), 1);
  std::memset(source.data() + 2, 0x80, 32);  // -128
  const Packed weight = Pack(WeightType::kQ8_0, kernels().lanes, 1, 32, source);
  const auto y = Run(weight, std::vector<float>(32, 1000), 1);
  EXPECT_FLOAT_EQ(y[0], -128.0f * 32 * 1000);
  for (const uint8_t byte : {0x80, 0x7f, 0xff, 0x00}) {
    std::memset(source.data() + 2, byte, 32);
    for (const float sign : {1.0f, -1.0f}) {
      const Packed planes = PackPlanes(kernels().lanes, 1, 32, source);
      EXPECT_FLOAT_EQ(Run(planes, std::vector<float>(32, sign * 1000), 1)[0],
                      sign * static_cast<float>(static_cast<int8_t>(byte)) * 32 * 1000);
    }
  }
}

// Integers cannot carry a NaN on: it would end as some number, and nobody would see that the model
// broke.
TEST_P(MatMulTest, ActivationsThatAreNoNumbersGiveNoNumbersInTheirRowAlone) {
  std::mt19937 random(8);
  for (WeightType type :
       {WeightType::kF32, WeightType::kQ8_0, WeightType::kQ4_1, WeightType::kQ4_K}) {
    const Packed weight = Pack(type, kernels().lanes, 5, 256, RandomWeights(random, type, 5, 256));
    for (const float broken : {NAN, -NAN, INFINITY}) {
      auto x = RandomFloats(random, 3 * 256);
      x[256 + 77] = broken;
      const auto y = Run(weight, x, 3);
      for (size_t row = 0; row < 3; ++row) {
        for (size_t c = 0; c < 5; ++c)
          EXPECT_EQ(std::isfinite(y[row * 8 + c]), row != 1) << FindWeightTypeInfo(type)->name;
      }
    }
  }
}

}  // namespace
}  // namespace quern::kernels::testing
