#include "runtime/sampling/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace quern {
namespace {

using Block = std::array<uint32_t, 4>;

// Known answers of the authors' Random123 library, file kat_vectors.
TEST(Philox, GivesTheAuthorsKnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(UniformAt, StaysInItsRangeAndSpreadsEvenlyOverPositionsAndSeeds) {
  constexpr int kDraws = 20000;
  constexpr int kBins = 50;
  for (const bool over_seeds : {false, true}) {
    std::array<int, kBins> bins{};
    for (int i = 0; i < kDraws; ++i) {
      const double u = over_seeds ? UniformAt(static_cast<uint64_t>(i), 3)
                                  : UniformAt(42, static_cast<uint64_t>(i));
      ASSERT_GE(u, 0.0);
      ASSERT_LT(u, 1.0);
      ++bins[static_cast<size_t>(u * kBins)];
    }
    double chi_square = 0;
    for (const int count : bins) {
      chi_square += std::pow(count - kDraws / kBins, 2) / (kDraws / kBins);
    }
    EXPECT_LT(chi_square, 85.4) << "49 degrees of freedom, p = 0.001";
  }
}

TEST(UniformAt, DiffersBetweenNeighbouringSeedsAndPositionsInAll64Bits) {
  std::set<double> seen;
  for (const uint64_t seed : {0ull, 1ull, 1ull << 32, 1ull << 63}) {
    for (const uint64_t position : {0ull, 1ull, 1ull << 32, 1ull << 63}) {
      EXPECT_TRUE(seen.insert(UniformAt(seed, position)).second);
    }
  }
}

}  // namespace
}  // namespace quern
