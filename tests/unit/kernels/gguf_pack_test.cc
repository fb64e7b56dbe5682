#include "kernels/cuda/gguf/gguf_layout.h"
#include "quern/kernels/gguf_weights.h"
#include "tests/unit/kernels/kernel_test_support.h"

namespace quern::kernels::testing {
namespace {

constexpr WeightType kTypes[] = {WeightType::kQ4_0, WeightType::kQ4_1, WeightType::kQ5_0,
                                 WeightType::kQ8_0, WeightType::kQ4_K, WeightType::kQ6_K};

std::vector<uint8_t> PackAll(const GgufMatrix& matrix, const std::vector<uint8_t>& source) {
  std::vector<uint8_t> data(static_cast<size_t>(GgufBytes(matrix)), 0xee);
  PackGgufTiles(matrix, source.data(), 0, matrix.row_tiles(), data.data());
  return data;
}

TEST(GgufPack, KeepsEveryWeightToTheBit) {
  std::mt19937 random(std::random_device{}());
  for (WeightType type : kTypes) {
    const WeightTypeInfo& info = *FindWeightTypeInfo(type);
    for (const auto& [rows, blocks] : {std::pair{1, 1}, {31, 3}, {33, 2}, {64, 5}}) {
      const int64_t cols = int64_t{blocks} * info.block_elements;
      const std::vector<uint8_t> source = RandomWeights(random, type, rows, cols);
      GgufMatrix matrix{type, rows, cols, nullptr};
      const std::vector<uint8_t> data = PackAll(matrix, source);
      matrix.data = data.data();
      std::vector<float> expected(static_cast<size_t>(cols));
      std::vector<float> got(expected.size());
      for (int64_t row = 0; row < rows; ++row) {
        ref::DequantizeRow(type, source.data() + row * blocks * info.block_bytes, cols,
                           expected.data());
        UnpackGgufRow(matrix, row, got.data());
        ASSERT_EQ(std::memcmp(got.data(), expected.data(), expected.size() * sizeof(float)), 0)
            << info.name << " " << rows << "x" << cols << " row " << row;
      }
    }
  }
}

// A bit of the source is a bit of the packed matrix: nothing lies on anything else, nothing is
// filled up where the rows are a multiple of a tile's.
TEST(GgufPack, TakesTheBytesOfTheSource) {
  std::mt19937 random(5);
  for (WeightType type : kTypes) {
    const WeightTypeInfo& info = *FindWeightTypeInfo(type);
    const int64_t cols = 2 * info.block_elements;
    const GgufMatrix matrix{type, 64, cols, nullptr};
    EXPECT_EQ(GgufBytes(matrix), 64 * 2 * info.block_bytes) << info.name;
    EXPECT_EQ(GgufBlockBytes(type) % 32, 0) << info.name;
    const std::vector<uint8_t> source = RandomWeights(random, type, 64, cols);
    const auto bits = [](const std::vector<uint8_t>& bytes) {
      int64_t count = 0;
      for (uint8_t byte : bytes) count += __builtin_popcount(byte);
      return count;
    };
    EXPECT_EQ(bits(PackAll(matrix, source)), bits(source)) << info.name;
  }
}

TEST(GgufPack, PacksTilesInAnyOrder) {
  std::mt19937 random(7);
  const GgufMatrix matrix{WeightType::kQ4_K, 70, 512, nullptr};
  const std::vector<uint8_t> source = RandomWeights(random, matrix.type, matrix.rows, matrix.cols);
  std::vector<uint8_t> data(static_cast<size_t>(GgufBytes(matrix)), 0xee);
  PackGgufTiles(matrix, source.data(), 2, 3, data.data());
  PackGgufTiles(matrix, source.data(), 0, 2, data.data());
  EXPECT_EQ(data, PackAll(matrix, source));
}

TEST(GgufPack, RefusesWhatHasNoLayout) {
  EXPECT_EQ(CheckGgufShape({WeightType::kQ6_K, 5, 512, nullptr}), "");
  EXPECT_EQ(CheckGgufShape({WeightType::kQ6_K, 5, 288, nullptr}),
            "a Q6_K matrix of 288 columns; they must be a multiple of 256");
  EXPECT_EQ(CheckGgufShape({WeightType::kQ5_K, 5, 256, nullptr}),
            "weights of type Q5_K have no layout for the GPU; Q4_0, Q4_1, Q5_0, Q8_0, Q4_K and "
            "Q6_K have");
  EXPECT_EQ(CheckGgufShape({static_cast<WeightType>(99), 5, 256, nullptr}).substr(0, 18),
            "weights of type 99");
  EXPECT_NE(CheckGgufShape({WeightType::kQ8_0, 0, 32, nullptr}), "");
}

}  // namespace
}  // namespace quern::kernels::testing
