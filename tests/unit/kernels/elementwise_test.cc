#include "quern/kernels/elementwise.h"

#include "quern/kernels/gated_activation.h"
#include "quern/kernels/hadamard.h"
#include "quern/kernels/rms_norm.h"
#include "quern/kernels/rope.h"
#include "tests/unit/kernels/kernel_test_support.h"

namespace quern::kernels::testing {
namespace {

class ElementwiseTest : public IsaTest {};
QUERN_FOR_EACH_ISA(ElementwiseTest);

constexpr int64_t kLengths[] = {1, 7, 8, 15, 16, 31, 100, 576};

TEST_P(ElementwiseTest, AddAgreesWithTheReference) {
  std::mt19937 random(1);
  for (int64_t n : kLengths) {
    const auto x = RandomFloats(random, static_cast<size_t>(n));
    auto expected = RandomFloats(random, static_cast<size_t>(n));
    auto got = expected;
    ref::Add(x.data(), n, expected.data());
    kernels().add(x.data(), n, got.data());
    EXPECT_EQ(got, expected);
  }
}

TEST_P(ElementwiseTest, SoftcapAgreesWithTheReferenceAndStaysBelowTheCap) {
  std::mt19937 random(2);
  for (int64_t n : kLengths) {
    auto expected = RandomFloats(random, static_cast<size_t>(n), 40);
    expected[0] = 1e6f;
    auto got = expected;
    ref::Softcap(30, n, expected.data());
    kernels().softcap(30, n, got.data());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(got[i], expected[i], 30 * 4e-7f);  // tanh to four roundings of 1
      EXPECT_LE(std::fabs(got[i]), 30.0f);
    }
  }
}

TEST_P(ElementwiseTest, RmsNormAgreesWithTheReference) {
  std::mt19937 random(3);
  for (int64_t n : kLengths) {
    const auto x = RandomFloats(random, static_cast<size_t>(n), 5);
    const auto weight = RandomFloats(random, static_cast<size_t>(n));
    std::vector<float> expected(static_cast<size_t>(n));
    ref::RmsNorm(x.data(), weight.data(), 1e-5f, n, expected.data());
    auto got = x;
    kernels().rms_norm(got.data(), weight.data(), 1e-5f, n, got.data());  // in place
    for (size_t i = 0; i < got.size(); ++i) {
      // The sum of squares rounds n / lanes times, its root halves that; then three products.
      const float relative = 0x1p-24f * (static_cast<float>(n) / 8 + 8);
      EXPECT_NEAR(got[i], expected[i], relative * std::fabs(expected[i]) + 1e-12f);
    }
  }
}

TEST_P(ElementwiseTest, HadamardAgreesWithTheReferenceAndIsItsOwnInverse) {
  std::mt19937 random(8);
  for (const int n : {1, 2, 4, 7, 16, 20, 24, 64, 80, 96, 128, 256}) {
    const auto x = RandomFloats(random, static_cast<size_t>(n));
    auto expected = x;
    auto got = x;
    ref::Hadamard(n, expected.data());
    kernels().hadamard(n, got.data());
    // A sum of block values of about 1, rounded once a level, over the root of block.
    const float error = 0x1p-24f * 8 * 4;
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], error) << "of " << n;
    kernels().hadamard(n, got.data());
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], x[i], 2 * error) << "of " << n;
  }
}

TEST_P(ElementwiseTest, HadamardSpreadsOneLargeElementOverItsBlock) {
  std::vector<float> x(96);
  x[35] = 8;
  kernels().hadamard(96, x.data());
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_NEAR(std::fabs(x[i]), i / 32 == 1 ? 8 / std::sqrt(32.0f) : 0.0f, 1e-6f);
  }
}

TEST_P(ElementwiseTest, GatedActivationsAgreeWithTheReferenceFarOutToo) {
  std::mt19937 random(4);
  for (Gate kind : {Gate::kSilu, Gate::kGeluTanh, Gate::kSiluClamped}) {
    for (int64_t n : kLengths) {
      auto expected = RandomFloats(random, static_cast<size_t>(n), 4);
      if (n > 20) {
        const float far[] = {-200, -90, -20, -5, -1e-6f, 0, 1e-6f, 5, 20, 90, 200, 1e10f, -1e10f};
        std::copy(std::begin(far), std::end(far), expected.begin());
      }
      const auto up = RandomFloats(random, static_cast<size_t>(n));
      auto got = expected;
      const auto gate = expected;
      ref::GatedActivation(kind, up.data(), n, expected.data());
      kernels().gated_activation(kind, up.data(), n, got.data());
      for (size_t i = 0; i < got.size(); ++i) {
        // exp(z) is off by 2^-22 and by the rounding of z, |z| 2^-24 (GELU's z has three more
        // roundings); where the gate is all but closed, exp is clamped at e^-87 (|g| 1.7e-38).
        const double cubic = kind == Gate::kGeluTanh ? 0.045 * gate[i] * gate[i] : 0;
        const double z = std::fabs((kind == Gate::kSilu ? 1 : 1.71) * gate[i] * (1 + cubic));
        const double relative = 0x1p-21 + 0x1p-22 * std::min(z, 100.0);
        EXPECT_NEAR(got[i], expected[i],
                    relative * std::fabs(expected[i]) +
                        4e-38 * std::fabs(gate[i]) * (1 + std::fabs(up[i])) + 1e-30)
            << "gate " << gate[i];
      }
    }
  }
}

TEST_P(ElementwiseTest, RopeAgreesWithTheReference) {
  std::mt19937 random(5);
  for (RopePairs pairs : {RopePairs::kAdjacent, RopePairs::kHalves}) {
    for (int dims : {2, 6, 20, 64, 256}) {
      const int head_dim = dims + 4;  // the rest is left alone
      std::vector<double> frequencies;
      for (int i = 0; i < dims / 2; ++i) frequencies.push_back(std::pow(10000.0, -2.0 * i / dims));
      std::vector<float> cosines(frequencies.size());
      std::vector<float> sines(frequencies.size());
      RopeAngles(1234, frequencies.data(), dims / 2, cosines.data(), sines.data());
      EXPECT_FLOAT_EQ(cosines[0], static_cast<float>(std::cos(1234.0)));
      auto expected = RandomFloats(random, static_cast<size_t>(3 * head_dim));
      auto got = expected;
      ref::Rope(pairs, cosines.data(), sines.data(), dims, 3, head_dim, expected.data());
      kernels().rope(pairs, cosines.data(), sines.data(), dims, 3, head_dim, got.data());
      for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-6);
    }
  }
}

}  // namespace
}  // namespace quern::kernels::testing
