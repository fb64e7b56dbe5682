#include "kernels/cuda/w4a16/w4a16_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

namespace quern::kernels {
namespace {

// Plans of all small sizes.
std::vector<W4Plan> Plans() {
  std::vector<W4Plan> plans;
  for (int32_t chunks : {1, 2, 3, 7, 16}) {
    for (int32_t blocks : {1, 2, 5, 11}) {
      for (int32_t ctas = 1; ctas <= chunks * blocks; ++ctas) {
        plans.push_back({chunks, chunks * blocks, ctas});
      }
    }
  }
  plans.push_back({223, 223 * 9000000, 4224});  // near 2^31 units
  return plans;
}

TEST(W4Plan, PiecesCoverAllUnitsAndDifferByOneAtMost) {
  for (const W4Plan& plan : Plans()) {
    EXPECT_EQ(plan.Begin(0), 0);
    EXPECT_EQ(plan.Begin(plan.ctas), plan.units);
    for (int32_t cta = 0; cta < plan.ctas; ++cta) {
      const int32_t size = plan.Begin(cta + 1) - plan.Begin(cta);
      EXPECT_GE(size, plan.units / plan.ctas);
      EXPECT_LE(size, (plan.units + plan.ctas - 1) / plan.ctas);
    }
  }
}

TEST(W4Plan, TheOwnerOfAUnitIsTheThreadBlockWhosePieceHoldsIt) {
  for (const W4Plan& plan : Plans()) {
    for (int32_t cta = 0; cta < plan.ctas; ++cta) {
      EXPECT_EQ(plan.Owner(plan.Begin(cta)), cta);
      EXPECT_EQ(plan.Owner(plan.Begin(cta + 1) - 1), cta);
    }
  }
}

// The kernel keeps a counter per first owner, and two parts per thread block.
TEST(W4Plan, AThreadBlockIsTheFirstOwnerOfOneSplitBlockAtMost) {
  for (const W4Plan& plan : Plans()) {
    std::set<int32_t> seen;
    for (int32_t block = 0; block < std::min(plan.units / plan.chunks, 20000); ++block) {
      const int32_t first = plan.Owner(block * plan.chunks);
      const int32_t last = plan.Owner((block + 1) * plan.chunks - 1);
      if (first == last) continue;
      EXPECT_TRUE(seen.insert(first).second);
    }
  }
}

TEST(W4Plan, AsManyThreadBlocksAsBlocksOfRowsSplitNone) {
  for (int32_t chunks : {1, 3, 448}) {
    const W4Plan plan{chunks, chunks * 97, 97};
    for (int32_t cta = 0; cta < 97; ++cta) EXPECT_EQ(plan.Begin(cta), cta * chunks);
  }
}

constexpr W4Format kFormats[] = {W4Format::kAwq, W4Format::kQ4_0, W4Format::kQ4_1};
constexpr int kA100Shared = 163 * 1024;
constexpr int kL40Shared = 99 * 1024;

TEST(W4Variants, FitTheSharedMemoryOfTheDeviceTheyAreChosenFor) {
  for (W4Format format : kFormats) {
    for (int64_t rows : {16, 4096, 65536}) {
      for (int64_t batch = 1; batch <= kW4MaxBatch; ++batch) {
        for (int shared : {kA100Shared, kL40Shared}) {
          const int chosen = ChooseW4Variant({format, rows, 4096, nullptr, nullptr}, batch, shared);
          EXPECT_LE(kW4Variants[chosen].shared_bytes(W4RecordBytes(format)), shared);
          EXPECT_GE(kW4Variants[chosen].batch(), batch);
        }
      }
    }
  }
}

TEST(W4ThreadBlocks, TakeWholeBlocksOfRowsOnlyWhereThatLoadsTheDeviceEvenly) {
  EXPECT_EQ(ChooseW4ThreadBlocks(128, 128 * 16, 132, 2), 128);
  EXPECT_EQ(ChooseW4ThreadBlocks(264, 264 * 16, 132, 2), 264);
  EXPECT_EQ(ChooseW4ThreadBlocks(140, 140 * 16, 132, 2), 264);  // two waves, half of one idle
  EXPECT_EQ(ChooseW4ThreadBlocks(528, 528 * 16, 132, 2), 264);  // more than are resident
  EXPECT_EQ(ChooseW4ThreadBlocks(1, 7, 132, 2), 7);
}

}  // namespace
}  // namespace quern::kernels
