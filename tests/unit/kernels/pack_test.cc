#include "quern/kernels/packed_layout.h"
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

// packed_matrix.h's description of the layout, bit for bit, into cleared memory.
std::vector<uint8_t> PackedByDefinition(const PackedMatrix& matrix,
                                        const std::vector<uint8_t>& source) {
  const WeightTypeInfo& info = *FindWeightTypeInfo(matrix.type);
  const PackedLayout layout = LayoutOf(matrix.type);
  const int64_t lanes = matrix.lanes;
  std::vector<uint8_t> packed(static_cast<size_t>(PackedBytes(matrix)));
  const int64_t row_bytes = matrix.cols / info.block_elements * info.block_bytes;
  for (int64_t row = 0; row < matrix.rows; ++row) {
    const int64_t r = row % lanes;
    const uint8_t* from = source.data() + row * row_bytes;
    uint8_t* tile =
        packed.data() + row / lanes * PackedTileBytes(matrix.type, matrix.lanes, matrix.cols);
    if (IsFloatType(matrix.type)) {
      for (int64_t i = 0; i < row_bytes; ++i) {
        tile[(i / info.block_bytes * lanes + r) * info.block_bytes + i % info.block_bytes] =
            from[i];
      }
      continue;
    }
    for (int64_t index = 0; index < matrix.cols / 32; ++index) {
      WeightGroup g{};
      ReadWeightGroups(matrix.type, from, index, 1, &g);
      uint8_t* block = tile + index / layout.groups * BlockBytes(matrix.type) * lanes;
      uint8_t* group =
          block + (layout.head + index % layout.groups * GroupBytes(matrix.type)) * lanes;
      const bool k_type = layout.head != 0;
      std::memcpy((k_type ? block : group) + 2 * r, &g.d, 2);
      if (layout.head == 4 || layout.scales == 4) {
        std::memcpy((k_type ? block : group) + 2 * lanes + 2 * r, &g.m, 2);
      }
      if (k_type) {
        group[r] = g.sc[0];
        group[lanes + r] = matrix.type == WeightType::kQ6_K ? g.sc[1] : g.mn;
      }
      uint8_t* low = group + layout.scales * lanes;
      uint8_t* high = low + layout.low * lanes;
      const auto or_bits = [&](uint8_t* part, int64_t v, int h, int shift, unsigned bits) {
        uint8_t* lane = part + ((v * lanes + r) * 2 + h) * 2;
        lane[shift / 8] = static_cast<uint8_t>(lane[shift / 8] | bits << shift % 8);
      };
      for (int k = 0; k < 32; ++k) {
        const int s = k / 2, h = k % 2;
        const unsigned q = static_cast<uint8_t>(g.q[k]);
        if (layout.low == 32) {
          low[(s * lanes + r) * 2 + h] = static_cast<uint8_t>(q);
          continue;
        }
        or_bits(low, s / 4, h, 4 * (s % 4), q & 15);
        if (layout.high_width == 1) or_bits(high, 0, h, s, q >> 4);
        if (layout.high_width == 2) or_bits(high, s / 8, h, 2 * (s % 8), q >> 4);
      }
    }
  }
  return packed;
}

TEST(Pack, EveryByteIsWhereTheLayoutSays) {
  std::mt19937 random(3);
  for (WeightType type : kAllWeightTypes) {
    const WeightTypeInfo& info = *FindWeightTypeInfo(type);
    for (int lanes : {8, 16}) {
      for (int64_t rows : {1, 7, 8, 16, 35}) {
        for (int64_t cols :
             {32, 256, 288, 768}) {  // no whole number of blocks: not for the K types
          if (cols % info.block_elements != 0) continue;
          const auto source = RandomWeights(random, type, rows, cols);
          Packed packed;
          packed.matrix = {type, lanes, rows, cols, nullptr};
          // Whatever the memory held before.
          packed.memory.assign(static_cast<size_t>(PackedBytes(packed.matrix)), 0xa5);
          PackTiles(packed.matrix, source.data(), 0, packed.matrix.tiles(), packed.memory.data());
          ASSERT_EQ(packed.memory, PackedByDefinition(packed.matrix, source))
              << info.name << ", lanes " << lanes << ", " << rows << " x " << cols;
        }
      }
    }
  }
}

// The same of Q8_0 in planes.
TEST(Pack, EveryHalfOfAByteIsWhereThePlanesHaveIt) {
  std::mt19937 random(4);
  for (const int64_t lanes : {8, 16}) {
    for (const int64_t rows : {1, 8, 16, 35}) {
      for (const int64_t cols : {32, 96, 288}) {
        const auto source = RandomWeights(random, WeightType::kQ8_0, rows, cols);
        Packed packed;
        packed.matrix = {WeightType::kQ8_0, static_cast<int>(lanes), rows, cols, nullptr, true};
        packed.memory.assign(static_cast<size_t>(PackedBytes(packed.matrix)), 0xa5);
        std::vector<uint8_t> expected(packed.memory.size());
        const int64_t groups = cols / 32;
        for (int64_t i = 0; i < rows * cols; ++i) {
          const int64_t tile = i / cols / lanes, r = i / cols % lanes;
          const int64_t g = i % cols / 32, s = i % 32 / 2, h = i % 2;
          const uint8_t* block = source.data() + i / 32 * 34;
          uint8_t* scales = expected.data() + tile * groups * 18 * lanes;
          uint8_t* high = scales + groups * 2 * lanes;
          uint8_t* low = expected.data() + packed.matrix.tiles() * groups * 18 * lanes +
                         tile * groups * 16 * lanes;
          std::memcpy(scales + (g * lanes + r) * 2, block, 2);
          // Of the 16-bit lanes' bytes: pairs 0 and 1 in the first one, 2 and 3 in the second.
          const int64_t byte = g * 16 * lanes + ((s / 4 * lanes + r) * 2 + h) * 2 + s % 4 / 2;
          const unsigned q = block[2 + i % 32] ^ 0x80u;
          const bool odd = s % 2 != 0;
          high[byte] = static_cast<uint8_t>(high[byte] | (odd ? q & 0xf0 : q >> 4));
          low[byte] = static_cast<uint8_t>(low[byte] | (odd ? q & 0x0f : (q & 0x0f) << 4));
        }
        for (int64_t tile = packed.matrix.tiles() - 1; tile >= 0; --tile) {
          PackTiles(packed.matrix, source.data(), tile, tile + 1, packed.memory.data());
        }
        ASSERT_EQ(packed.memory, expected) << lanes << " lanes, " << rows << " x " << cols;
        packed.matrix.data = packed.memory.data();
        for (int64_t row = 0; row < rows; ++row) {
          std::vector<float> given(static_cast<size_t>(cols)), got(given.size());
          ref::DequantizeRow(WeightType::kQ8_0, source.data() + row * groups * 34, cols,
                             given.data());
          UnpackRow(packed.matrix, row, got.data());
          ASSERT_EQ(std::memcmp(got.data(), given.data(), got.size() * sizeof(float)), 0) << row;
        }
      }
    }
  }
}

TEST(Pack, PlanesTakeAsMuchMemoryAsTheFile) {
  EXPECT_EQ(PackedBytes({WeightType::kQ8_0, 16, 64, 1024, nullptr, true}), 64 * 1024 / 32 * 34);
  EXPECT_EQ(PackedBytes({WeightType::kQ8_0, 8, 64, 1024, nullptr, true}), 64 * 1024 / 32 * 34);
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
