#include "tests/unit/kernels/kernel_test_support.h"

namespace quern::kernels::testing {
namespace {

TEST(Pack, EveryRowComesBackBitForBit) {
  std::mt19937 random(1);
  for (WeightType type : kAllWeightTypes) {
    for (int lanes : {8, 16}) {
      for (int64_t rows : {1, 7, 16, 33}) {
        const int64_t cols = 512;
        const auto source = RandomWeights(random, type, rows, cols);
        const Packed packed = Pack(type, lanes, rows, cols, source);
        const size_t row_bytes = source.size() / static_cast<size_t>(rows);
        for (int64_t row = 0; row < rows; ++row) {
          std::vector<float> expected(static_cast<size_t>(cols));
          std::vector<float> got(static_cast<size_t>(cols));
          ref::DequantizeRow(type, source.data() + static_cast<size_t>(row) * row_bytes, cols,
                             expected.data());
          UnpackRow(packed.matrix, row, got.data());
          ASSERT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0)
              << FindWeightTypeInfo(type)->name << ", lanes " << lanes << ", row " << row;
        }
      }
    }
  }
}

TEST(Pack, TakesNoMoreMemoryThanTheFileButForScalesOfKTypes) {
  for (WeightType type : kAllWeightTypes) {
    const WeightTypeInfo& info = *FindWeightTypeInfo(type);
    const int64_t file_bytes = 64 * 1024 / info.block_elements * info.block_bytes;
    const int64_t packed = PackedBytes({type, 8, 64, 1024, nullptr});
    // Q4_K and Q5_K: 6-bit scales and minima become bytes, 4 more in 256 weights.
    EXPECT_LE(packed, file_bytes + 64 * 1024 / 256 * 4) << info.name;
  }
}

TEST(Pack, TilesMayBePackedInAnyOrder) {
  std::mt19937 random(2);
  const auto source = RandomWeights(random, WeightType::kQ5_K, 40, 256);
  const Packed whole = Pack(WeightType::kQ5_K, 8, 40, 256, source);
  std::vector<uint8_t> pieces(whole.memory.size(), 0xff);
  for (int64_t tile : {3, 0, 4, 2, 1}) {
    PackTiles(whole.matrix, source.data(), tile, tile + 1, pieces.data());
  }
  EXPECT_EQ(pieces, whole.memory);
}

}  // namespace
}  // namespace quern::kernels::testing
