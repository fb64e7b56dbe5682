#include "runtime/sampling/logit_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace quern {
namespace {

class LogitScanTest : public testing::TestWithParam<ScanIsa> {
 protected:
  void SetUp() override {
    if (!SupportsScanIsa(GetParam()))
      GTEST_SKIP() << "this CPU lacks it; hack/test --stage avx512 emulates one that has";
  }

  static std::vector<float> RandomLogits(size_t n, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(-2.0f, 6.0f);
    std::vector<float> logits(n);
    for (float& logit : logits) logit = normal(random);
    return logits;
  }
};

constexpr size_t kSizes[] = {1, 2, 7, 15, 16, 17, 63, 64, 65, 127, 128, 300, 1000, 49152, 49153};

TEST_P(LogitScanTest, FindsTheMaximumOfEveryChunk) {
  const LogitScan scan(GetParam());
  for (const size_t n : kSizes) {
    const auto logits = RandomLogits(n, static_cast<uint32_t>(n));
    std::vector<float> chunk_max(NumScanChunks(n));
    ASSERT_TRUE(scan.ChunkMax(logits, chunk_max));
    for (size_t c = 0; c < chunk_max.size(); ++c) {
      const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(c * kScanChunk);
      const auto end =
          logits.begin() + static_cast<std::ptrdiff_t>(std::min(n, (c + 1) * kScanChunk));
      ASSERT_EQ(chunk_max[c], *std::max_element(begin, end)) << n << " chunk " << c;
    }
  }
}

TEST_P(LogitScanTest, TheLeastFloatIsFoundAsAMaximumInAPartialChunk) {
  const LogitScan scan(GetParam());
  const std::vector<float> logits(3, std::numeric_limits<float>::lowest());
  std::vector<float> chunk_max(1);
  ASSERT_TRUE(scan.ChunkMax(logits, chunk_max));
  EXPECT_EQ(chunk_max[0], std::numeric_limits<float>::lowest());
}

TEST_P(LogitScanTest, ANanOrInfinityAnywhereIsNoticed) {
  const LogitScan scan(GetParam());
  const float inf = std::numeric_limits<float>::infinity();
  for (const size_t n : {1u, 5u, 64u, 150u, 200u}) {
    for (const float bad : {std::nanf(""), inf, -inf}) {
      for (size_t at = 0; at < n; ++at) {
        auto logits = RandomLogits(n, 1);
        logits[at] = bad;
        std::vector<float> chunk_max(NumScanChunks(n));
        ASSERT_FALSE(scan.ChunkMax(logits, chunk_max)) << bad << " at " << at << " of " << n;
      }
    }
  }
}

TEST_P(LogitScanTest, ExpIsWithinItsStatedErrorOfTheDoubleOne) {
  const LogitScan scan(GetParam());
  std::vector<float> x, y;
  for (float v = 0; v > -84.9f; v -= 0.00173f) x.push_back(v);
  y.resize(x.size());
  scan.Exp(x, 0.0f, 1.0f, y);
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    ASSERT_NEAR(y[i] / exact, 1.0, 3e-7) << x[i];
  }
}

TEST_P(LogitScanTest, ExpOfVerySmallTermsIsZeroAndNeverNan) {
  const LogitScan scan(GetParam());
  const float lowest = std::numeric_limits<float>::lowest();
  const std::vector<float> x = {0.0f, -86.0f, -1e4f, -1e30f, lowest};
  std::vector<float> y(x.size());
  scan.Exp(x, 0.0f, 1.0f, y);
  EXPECT_EQ(y, (std::vector<float>{1, 0, 0, 0, 0}));
  scan.Exp(x, std::numeric_limits<float>::max(), 1e5f, y);
  EXPECT_EQ(y, (std::vector<float>{0, 0, 0, 0, 0}));
}

TEST_P(LogitScanTest, SumsOfChunksAgreeWithDoublePrecision) {
  const LogitScan scan(GetParam());
  for (const size_t n : kSizes) {
    const auto logits = RandomLogits(n, static_cast<uint32_t>(n) + 1);
    const float max = *std::max_element(logits.begin(), logits.end());
    for (const float temperature : {0.3f, 1.0f, 1.7f}) {
      std::vector<float> sums(NumScanChunks(n));
      scan.ChunkSumExp(logits, max, 1 / temperature, sums);
      for (size_t c = 0; c < sums.size(); ++c) {
        double exact = 0;
        for (size_t i = c * kScanChunk; i < std::min(n, (c + 1) * kScanChunk); ++i) {
          exact += std::exp((static_cast<double>(logits[i]) - max) / temperature);
        }
        // The argument of exp is rounded to a float: an error that grows with its size.
        const double depth = exact > 0 ? std::abs(std::log(exact)) : 90;
        ASSERT_NEAR(sums[c], exact, (1e-6 + 2.5e-7 * depth) * exact + 1e-36) << n << " chunk " << c;
      }
    }
  }
}

TEST_P(LogitScanTest, MomentsAreTheTermsTimesTheirDepths) {
  const LogitScan scan(GetParam());
  for (const size_t n : kSizes) {
    auto logits = RandomLogits(n, static_cast<uint32_t>(n) + 3);
    const float max = *std::max_element(logits.begin(), logits.end());
    if (n > 2) logits[n / 2] = std::numeric_limits<float>::lowest();  // weighs nothing
    const size_t chunks = NumScanChunks(n);
    std::vector<float> sums(chunks), expected_sums(chunks), moments(chunks), terms(n);
    scan.ChunkSumExp(logits, max, 0.8f, expected_sums);
    scan.Exp(logits, max, 0.8f, terms);
    scan.ChunkMoments(logits, max, 0.8f, sums, moments);
    EXPECT_EQ(sums, expected_sums);
    for (size_t c = 0; c < chunks; ++c) {
      double expected = 0;
      for (size_t i = c * kScanChunk; i < std::min(n, (c + 1) * kScanChunk); ++i) {
        if (terms[i] > 0) expected += double{terms[i]} * (double{logits[i]} - max);
      }
      ASSERT_NEAR(moments[c], expected, -2e-6 * expected + 1e-36) << n << " chunk " << c;
    }
  }
}

TEST_P(LogitScanTest, SumsNearACentreLeaveOutWhatIsAsFarAsTheReach) {
  const LogitScan scan(GetParam());
  for (const size_t n : kSizes) {
    auto logits = RandomLogits(n, static_cast<uint32_t>(n) + 4);
    const float max = *std::max_element(logits.begin(), logits.end());
    const float centre = max - 6.0f, reach = 2.5f;
    logits[n / 2] = centre - reach;
    if (n > 2) logits[n / 3] = centre + reach;
    if (n > 7) logits[n / 4] = std::numeric_limits<float>::lowest();
    for (size_t i = 64; i < std::min<size_t>(n, 128); ++i) logits[i] = centre - reach;  // a chunk
    std::vector<float> chunk_max(NumScanChunks(n)), sums(NumScanChunks(n)), terms(n);
    ASSERT_TRUE(scan.ChunkMax(logits, chunk_max));
    scan.Exp(logits, max, 0.8f, terms);
    scan.ChunkSumExpNear(logits, chunk_max, max, 0.8f, centre, reach, sums);
    for (size_t c = 0; c < sums.size(); ++c) {
      double expected = 0;
      for (size_t i = c * kScanChunk; i < std::min(n, (c + 1) * kScanChunk); ++i) {
        if (std::abs(logits[i] - centre) < reach) expected += terms[i];
      }
      ASSERT_NEAR(sums[c], expected, 1e-6 * expected) << n << " chunk " << c;
    }
  }
}

std::string IsaName(const testing::TestParamInfo<ScanIsa>& info) {
  switch (info.param) {
    case ScanIsa::kGeneric:
      return "Generic";
    case ScanIsa::kAvx2:
      return "Avx2";
    case ScanIsa::kAvx512:
      return "Avx512";
  }
  return "Unknown";
}

INSTANTIATE_TEST_SUITE_P(EveryInstructionSet, LogitScanTest,
                         testing::Values(ScanIsa::kGeneric, ScanIsa::kAvx2, ScanIsa::kAvx512),
                         IsaName);

TEST(SelectScanIsa, FollowsTheVariableThatSteersTheKernels) {
  const char* before = std::getenv("QUERN_CPU_ISA");
  const std::string kept = before != nullptr ? before : "";
  setenv("QUERN_CPU_ISA", "scalar", 1);
  EXPECT_EQ(SelectScanIsa(), ScanIsa::kGeneric);
  if (SupportsScanIsa(ScanIsa::kAvx2)) {
    setenv("QUERN_CPU_ISA", "avx2", 1);
    EXPECT_EQ(SelectScanIsa(), ScanIsa::kAvx2);
    unsetenv("QUERN_CPU_ISA");
    EXPECT_NE(SelectScanIsa(), ScanIsa::kGeneric);
  }
  unsetenv("QUERN_CPU_ISA");
  if (!kept.empty()) setenv("QUERN_CPU_ISA", kept.c_str(), 1);
}

}  // namespace
}  // namespace quern
