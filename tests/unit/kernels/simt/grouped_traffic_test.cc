#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cuda/common/matmul_plan.h"
#include "quern/kernels/grouped_matmul.h"
#include "tests/unit/kernels/simt/simt_test_support.h"

// What grouped products move, counted: an expert's weights once for each tile of its rows, nothing
// of an expert that has none, and the rows of x that have a pair.
namespace quern::kernels::testing {
namespace {

constexpr int64_t kRows = 128;
constexpr int64_t kCols = 2048;
constexpr int64_t kTopK = 2;

// Pairs for experts 1 and 3 of 5; tokens take part in both.
struct Routed {
  int64_t tile, pairs, rows;
  std::vector<int32_t> row_pairs, offsets;

  Routed(int64_t tile_rows, int64_t tokens) : tile(tile_rows), pairs(tokens * kTopK) {
    std::vector<int32_t> ids, pair_rows(static_cast<size_t>(pairs));
    for (int64_t t = 0; t < tokens; ++t) ids.insert(ids.end(), {3, 1});
    rows = MoePermuteRows(pairs, 5, tile);
    row_pairs.resize(static_cast<size_t>(rows));
    offsets.resize(6);
    ref::MoePermute({ids.data(), pairs, 5, tile, row_pairs.data(), pair_rows.data(), offsets.data(),
                     nullptr, 0});
  }
};

// `weight_bytes` of one expert, for the last launch with tiles of y of `batch` rows.
void ExpectLeastGroupedTraffic(const std::string& text, const Routed& routed, int shape,
                               int64_t weight_bytes) {
  const simt::Counts& counts = simt::LastReport().counts;
  const MatMulShape& tile = kMatMulShapes[shape];
  const int64_t batch_tiles = 2 * ((routed.pairs / 2 + tile.batch() - 1) / tile.batch());
  const int64_t row_tiles = kRows / tile.rows();
  const int64_t operands = batch_tiles * weight_bytes + row_tiles * routed.pairs * kCols * 2;
  // Where tiles lie and whose rows they are is read by each warp, for some sectors each.
  const int64_t found = batch_tiles * row_tiles * (tile.threads() / 32) * 64 * 32;
  EXPECT_GE(counts.global_load.units * 32, operands) << text;
  EXPECT_LE(counts.global_load.units * 32, operands + found) << text;
  EXPECT_LT(found * 4, operands) << text;
  EXPECT_EQ(counts.global_store.units, kRows / 16 * routed.pairs) << text;
  EXPECT_EQ(counts.shared_store.units, counts.shared_store.minimum) << text;
  EXPECT_EQ(counts.shared_load.units, counts.shared_load.minimum) << text;
}

TEST(GroupedMatMulTraffic, ReadsTheWeightsOfUsedExpertsOnceForEachTile) {
  const DeviceArray<uint16_t> x(std::vector<uint16_t>(static_cast<size_t>(64 * kCols), 0));
  for (const auto& [shape, tile, tokens] :
       {std::tuple{0, 8, 5}, {0, 8, 11}, {1, 16, 16}, {2, 32, 20}, {4, 64, 40}}) {
    const Routed routed(tile, tokens);
    const DeviceArray<int32_t> row_pairs(routed.row_pairs);
    const DeviceArray<int32_t> offsets(routed.offsets);
    const DeviceArray<uint16_t> y(static_cast<size_t>(routed.rows * kRows));
    const GroupedMatMulArgs args{offsets.data(), row_pairs.data(),
                                 routed.pairs,   5,
                                 tile,           ActivationType::kF16,
                                 x.data(),       kCols,
                                 kTopK,          y.data(),
                                 kRows};
    for (WeightType type : {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_0,
                            WeightType::kQ8_0, WeightType::kQ4_K, WeightType::kQ6_K}) {
      GgufMatrix one{type, kRows, kCols, nullptr};
      const DeviceArray<uint8_t> data(
          std::vector<uint8_t>(static_cast<size_t>(5 * GgufBytes(one)), 1));
      one.data = data.data();
      const WithOptions options({.seed = 1, .count_traffic = true});
      ASSERT_EQ(GroupedGgufMatMul(args, one, nullptr), "");
      ExpectLeastGroupedTraffic(std::string(FindWeightTypeInfo(type)->name) + " tile " +
                                    std::to_string(tile) + "\n" + simt::Text(simt::LastReport()),
                                routed, shape, GgufBytes(one));
    }
    const DeviceArray<uint16_t> w(std::vector<uint16_t>(5 * kRows * kCols, 0));
    const WithOptions options({.seed = 1, .count_traffic = true});
    ASSERT_EQ(GroupedGemm(args, {w.data(), kCols, kRows, kCols}, nullptr), "");
    ExpectLeastGroupedTraffic(
        "dense tile " + std::to_string(tile) + "\n" + simt::Text(simt::LastReport()), routed, shape,
        kRows * kCols * 2);
  }
}

TEST(GroupedMatMulPlan, TakesTheLargestShapeThatDividesTheTileAndFits) {
  int shared[kMatMulShapeCount];
  for (int i = 0; i < kMatMulShapeCount; ++i) shared[i] = kMatMulShapes[i].shared_bytes(2048, 0);
  constexpr int kSmall = 99 * 1024;
  constexpr int kLarge = 163 * 1024;
  const auto batch = [&](int64_t tile, int limit) {
    return kMatMulShapes[ChooseGroupedMatMulShape(tile, limit, shared)].batch();
  };
  EXPECT_EQ(batch(8, kLarge), 8);
  EXPECT_EQ(batch(16, kLarge), 16);
  EXPECT_EQ(batch(24, kLarge), 8);
  EXPECT_EQ(batch(32, kLarge), 32);
  EXPECT_EQ(batch(64, kLarge), 64);
  EXPECT_EQ(batch(96, kLarge), 32);
  EXPECT_EQ(batch(32, kSmall), 16);
  EXPECT_EQ(batch(64, kSmall), 64);
}

}  // namespace
}  // namespace quern::kernels::testing
