#include <gtest/gtest.h>

#include "quern/kernels/moe_combine.h"
#include "quern/kernels/moe_permute.h"
#include "quern/kernels/moe_route.h"
#include "tests/unit/kernels/simt/simt_test_support.h"

namespace quern::kernels::testing {
namespace {

simt::Options Counting() { return {.seed = 1, .count_traffic = true}; }

TEST(MoeTraffic, RouterReadsEachLogitOnce) {
  constexpr int64_t kTokens = 8;
  for (int64_t experts : {32, 128, 256, 512}) {
    const DeviceArray<float> logits(
        std::vector<float>(static_cast<size_t>(kTokens * experts), 0.5f));
    const DeviceArray<int32_t> ids(kTokens * 8);
    const DeviceArray<float> weights(kTokens * 8);
    const WithOptions options(Counting());
    ASSERT_EQ(MoeRoute({logits.data(), experts, kTokens, experts, 8, RouterNorm::kAllExperts, 1,
                        ids.data(), weights.data()},
                       nullptr),
              "");
    const simt::Counts& counts = simt::LastReport().counts;
    EXPECT_EQ(counts.global_load.units * 32, kTokens * experts * 4);
    EXPECT_EQ(counts.global_store.units * 32, kTokens * 8 * 8);
    EXPECT_EQ(counts.block_barriers, 0);
  }
}

// Each chosen row once, in whole sectors; the rows' numbers and weights of a token are the same
// words for all threads.
TEST(MoeTraffic, CombineReadsEachRowOnce) {
  constexpr int64_t kTokens = 3, kTopK = 4, kHidden = 2048;
  const DeviceArray<uint16_t> y(std::vector<uint16_t>(kTokens * kTopK * kHidden, 0x3c00));
  std::vector<int32_t> rows(kTokens * kTopK);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(rows.size() - 1 - i);
  const DeviceArray<int32_t> pair_rows(rows);
  const DeviceArray<float> weights(std::vector<float>(rows.size(), 0.25f));
  const DeviceArray<uint16_t> out(kTokens * kHidden);
  const WithOptions options(Counting());
  ASSERT_EQ(MoeCombine({ActivationType::kF16, kTokens, kTopK, kHidden, y.data(), kHidden,
                        pair_rows.data(), weights.data(), out.data(), kHidden},
                       nullptr),
            "");
  const simt::Counts& counts = simt::LastReport().counts;
  const int64_t warps = kTokens * kHidden / 8 / 32;
  EXPECT_EQ(counts.global_load.units, kTokens * kTopK * kHidden * 2 / 32 + warps * kTopK * 2);
  EXPECT_EQ(counts.global_store.units, kTokens * kHidden * 2 / 32);
  EXPECT_EQ(counts.global_sectors, counts.global_store.units + kTokens * kTopK * kHidden * 2 / 32 +
                                       2 * ((kTokens * kTopK * 4 + 31) / 32));
}

// The last of the three steps: the pairs are read twice (to count, to place) and never the rows.
TEST(MoeTraffic, PermuteReadsPairsTwiceAndWritesEachRowOnce) {
  constexpr int64_t kPairs = 4096, kExperts = 64, kTile = 16;
  std::vector<int32_t> ids(kPairs);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 37 % kExperts);
  const DeviceArray<int32_t> expert_ids(ids);
  const DeviceArray<int32_t> row_pairs(MoePermuteRows(kPairs, kExperts, kTile));
  const DeviceArray<int32_t> pair_rows(kPairs);
  const DeviceArray<int32_t> offsets(kExperts + 1);
  const size_t bytes = MoePermuteWorkspaceBytes(kPairs, kExperts);
  const DeviceArray<uint8_t> workspace(bytes);
  const WithOptions options(Counting());
  ASSERT_EQ(MoePermute({expert_ids.data(), kPairs, kExperts, kTile, row_pairs.data(),
                        pair_rows.data(), offsets.data(), workspace.data(), bytes},
                       nullptr),
            "");
  const simt::Counts& counts = simt::LastReport().counts;
  EXPECT_EQ(counts.global_load.bytes, 2 * kPairs * 4 + kPairs / 1024 * kExperts * 8);
  EXPECT_EQ(counts.global_store.bytes, kPairs * 8);
}

}  // namespace
}  // namespace quern::kernels::testing
