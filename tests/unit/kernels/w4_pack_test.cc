#include <set>

#include "quern/kernels/w4_weights.h"
#include "tests/unit/kernels/kernel_test_support.h"

namespace quern::kernels::testing {
namespace {

// A packed 4-bit matrix with its memory.
struct W4Packed {
  std::vector<uint8_t> codes;
  std::vector<uint16_t> scales;
  W4Matrix matrix;

  explicit W4Packed(W4Matrix shape)
      : codes(static_cast<size_t>(W4CodeBytes(shape)), 0xee),
        scales(static_cast<size_t>(W4ScaleBytes(shape)) / 2, 0xeeee),
        matrix(shape) {
    matrix.codes = codes.data();
    matrix.scales = scales.data();
  }
};

W4Packed PackGguf(W4Format format, int64_t rows, int64_t cols, const std::vector<uint8_t>& source) {
  W4Packed packed({format, rows, cols, nullptr, nullptr});
  RepackGguf(packed.matrix, source.data(), 0, packed.matrix.row_tiles(), packed.codes.data(),
             packed.scales.data());
  return packed;
}

// A layer as AutoAWQ stores it, and the numbers in it in plain order.
struct AwqLayer {
  int64_t rows, cols;
  std::vector<uint32_t> qweight, qzeros;
  std::vector<uint16_t> scales;
  std::vector<int> q, z;  // [cols][rows], [cols / 128][rows]

  AwqLayer(std::mt19937& random, int64_t rows, int64_t cols) : rows(rows), cols(cols) {
    Fill(random, cols, &q, &qweight);
    Fill(random, cols / 128, &z, &qzeros);
    std::normal_distribution<float> normal(0, 0.02f);
    scales.resize(static_cast<size_t>(cols / 128 * rows));
    for (uint16_t& scale : scales) scale = FloatToHalf(normal(random));
  }

  void Fill(std::mt19937& random, int64_t lines, std::vector<int>* plain,
            std::vector<uint32_t>* words) const {
    constexpr int kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    plain->resize(static_cast<size_t>(lines * rows));
    for (int& value : *plain) value = static_cast<int>(random() % 16);
    words->assign(plain->size() / 8, 0);
    for (size_t i = 0; i < plain->size(); ++i) {
      const size_t word = i / 8;
      (*words)[word] |= static_cast<uint32_t>((*plain)[word * 8 + kOrder[i % 8]]) << (4 * (i % 8));
    }
  }

  AwqTensors tensors() const { return {qweight.data(), qzeros.data(), scales.data()}; }
};

W4Packed PackAwq(const AwqLayer& layer) {
  W4Packed packed({W4Format::kAwq, layer.rows, layer.cols, nullptr, nullptr});
  RepackAwq(packed.matrix, layer.tensors(), 0, packed.matrix.row_tiles(), packed.codes.data(),
            packed.scales.data());
  return packed;
}

TEST(W4Pack, EveryGgufRowComesBackBitForBit) {
  std::mt19937 random(1);
  for (W4Format format : {W4Format::kQ4_0, W4Format::kQ4_1}) {
    const WeightType type = format == W4Format::kQ4_0 ? WeightType::kQ4_0 : WeightType::kQ4_1;
    for (int64_t rows : {1, 15, 16, 33}) {
      for (int64_t cols : {32, 64, 96, 512}) {
        const auto source = RandomWeights(random, type, rows, cols);
        const W4Packed packed = PackGguf(format, rows, cols, source);
        const size_t row_bytes = source.size() / static_cast<size_t>(rows);
        for (int64_t row = 0; row < rows; ++row) {
          std::vector<float> expected(static_cast<size_t>(cols));
          std::vector<float> got(static_cast<size_t>(cols));
          ref::DequantizeRow(type, source.data() + static_cast<size_t>(row) * row_bytes, cols,
                             expected.data());
          UnpackW4Row(packed.matrix, row, got.data());
          ASSERT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0)
              << rows << " x " << cols << ", row " << row;
        }
      }
    }
  }
}

TEST(W4Pack, AwqWeightsAreScaleTimesCodeMinusZero) {
  std::mt19937 random(2);
  for (int64_t rows : {8, 24, 40}) {
    const AwqLayer layer(random, rows, 384);
    const W4Packed packed = PackAwq(layer);
    std::vector<float> got(384);
    for (int64_t row = 0; row < rows; ++row) {
      UnpackW4Row(packed.matrix, row, got.data());
      for (int64_t col = 0; col < 384; ++col) {
        const auto group = static_cast<size_t>(col / 128 * rows + row);
        const int q = layer.q[static_cast<size_t>(col * rows + row)];
        const float expected =
            HalfToFloat(layer.scales[group]) * static_cast<float>(q - layer.z[group]);
        ASSERT_EQ(got[static_cast<size_t>(col)], expected) << "row " << row << ", column " << col;
      }
    }
  }
}

// The layout is a contract with the kernel: this writes it down from mma.sync's fragments.
TEST(W4Pack, ALanesWordHoldsItsFragmentOfTheTensorCoresOperand) {
  std::mt19937 random(3);
  const AwqLayer layer(random, 32, 128);
  const W4Packed packed = PackAwq(layer);
  for (int row_tile = 0; row_tile < 2; ++row_tile) {
    for (int col_tile = 0; col_tile < 2; ++col_tile) {
      for (int lane = 0; lane < 32; ++lane) {
        for (int word = 0; word < 4; ++word) {
          uint32_t bits;
          const int place = word ^ (lane / 8 % 2 * 2);
          std::memcpy(&bits,
                      &packed.codes[((row_tile * 2 + col_tile) * 32 + lane) * 16 + place * 4], 4);
          for (int a = 0; a < 8; ++a) {  // a0 ... a7 of the PTX manual, m16n8k16
            const int nibble = a / 2 + a % 2 * 4;
            const int row = row_tile * 16 + lane / 4 + (a / 2 % 2) * 8;
            const int col =
                col_tile * 64 + word / 2 * 32 + lane % 4 * 8 + word % 2 * 4 + a / 4 * 2 + a % 2;
            ASSERT_EQ((bits >> (4 * nibble)) & 15,
                      static_cast<uint32_t>(layer.q[static_cast<size_t>(col * 32 + row)]));
          }
        }
      }
    }
  }
}

TEST(W4Pack, WhatFillsUpTheLastTilesWeighsNothing) {
  std::mt19937 random(4);
  const auto source = RandomWeights(random, WeightType::kQ4_1, 5, 96);
  const W4Packed packed = PackGguf(W4Format::kQ4_1, 5, 96, source);
  const W4Matrix padded{W4Format::kQ4_1, 16, 128, packed.codes.data(), packed.scales.data()};
  std::vector<float> got(128);
  for (int64_t row = 0; row < 16; ++row) {
    UnpackW4Row(padded, row, got.data());
    for (size_t col = row < 5 ? 96 : 0; col < 128; ++col) ASSERT_EQ(got[col], 0);
  }
}

TEST(W4Pack, TilesMayBePackedInAnyOrder) {
  std::mt19937 random(5);
  const auto source = RandomWeights(random, WeightType::kQ4_0, 70, 256);
  const W4Packed whole = PackGguf(W4Format::kQ4_0, 70, 256, source);
  W4Packed pieces({W4Format::kQ4_0, 70, 256, nullptr, nullptr});
  for (int64_t tile : {3, 0, 4, 2, 1}) {
    RepackGguf(pieces.matrix, source.data(), tile, tile + 1, pieces.codes.data(),
               pieces.scales.data());
  }
  EXPECT_EQ(pieces.codes, whole.codes);
  EXPECT_EQ(pieces.scales, whole.scales);
}

TEST(W4Pack, TakesNoMoreMemoryThanTheFile) {
  const auto bytes = [](W4Format format) {
    const W4Matrix shape{format, 4096, 4096, nullptr, nullptr};
    return W4CodeBytes(shape) + W4ScaleBytes(shape);
  };
  constexpr int64_t kWeights = int64_t{4096} * 4096;
  EXPECT_EQ(bytes(W4Format::kQ4_0), kWeights / 32 * 18);
  EXPECT_EQ(bytes(W4Format::kQ4_1), kWeights / 32 * 20);
  EXPECT_EQ(bytes(W4Format::kAwq), kWeights / 2 + kWeights / 128 * 4);  // 12 bits more for a zero
}

TEST(W4Pack, SizesOfLargeMatricesDoNotOverflow) {
  const W4Matrix huge{W4Format::kQ4_1, int64_t{1} << 29, int64_t{1} << 29, nullptr, nullptr};
  EXPECT_EQ(W4CodeBytes(huge), int64_t{1} << 57);
  EXPECT_EQ(W4ScaleBytes(huge), int64_t{1} << 55);
}

TEST(W4Pack, RefusesShapesThatItCannotHold) {
  const auto wrong = [](W4Format format, int64_t rows, int64_t cols) {
    return CheckW4Shape({format, rows, cols, nullptr, nullptr});
  };
  EXPECT_EQ(wrong(W4Format::kQ4_0, 7, 96), "");
  EXPECT_EQ(wrong(W4Format::kAwq, 7, 256), "");
  EXPECT_NE(wrong(W4Format::kAwq, 7, 96).find("multiple of 128"), std::string::npos);
  EXPECT_NE(wrong(W4Format::kQ4_1, 7, 33).find("multiple of 32"), std::string::npos);
  EXPECT_NE(wrong(W4Format::kQ4_1, 0, 32).find("from 1 to"), std::string::npos);
  EXPECT_NE(wrong(W4Format::kQ4_1, 1, int64_t{1} << 30).find("from 1 to"), std::string::npos);
}

}  // namespace
}  // namespace quern::kernels::testing
