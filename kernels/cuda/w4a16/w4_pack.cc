#include <algorithm>
#include <cstring>

#include "quern/kernels/dequantize.h"
#include "quern/kernels/numeric_types.h"
#include "quern/kernels/w4_weights.h"

namespace quern::kernels {
namespace {

constexpr int64_t kTileBytes = kW4TileRows * kW4TileCols / 2;
constexpr int64_t kMaxExtent = int64_t{1} << 30;

// uint16 of one record: the scales of a row tile for one group (AWQ) or column tile (GGUF).
constexpr int RecordValues(W4Format format) { return format == W4Format::kQ4_1 ? 64 : 32; }

int64_t Records(const W4Matrix& matrix) {
  return matrix.format == W4Format::kAwq ? matrix.cols / 128 : matrix.col_tiles();
}

// Where the code of (row, col) of a tile lies: in which byte, and whether in its upper half.
struct CodePlace {
  int byte;
  bool upper;
};

constexpr CodePlace PlaceOf(int row, int col) {
  const int lane = row % 8 * 4 + col % 32 / 8;
  const int word = (col / 32 * 2 + col % 8 / 4) ^ W4WordSwap(lane);
  const int nibble = row / 8 + col % 4 / 2 * 2 + col % 2 * 4;
  return {lane * 16 + word * 4 + nibble / 2, nibble % 2 != 0};
}

void PutCode(uint8_t* tile, int row, int col, int q) {
  const CodePlace place = PlaceOf(row, col);
  tile[place.byte] |= static_cast<uint8_t>(place.upper ? q << 4 : q);
}

int GetCode(const uint8_t* tile, int row, int col) {
  const CodePlace place = PlaceOf(row, col);
  return place.upper ? tile[place.byte] >> 4 : tile[place.byte] & 0xf;
}

// Index in its row tile's records of the first number of `row` for the group that holds `col`;
// AWQ and Q4_1 have the second one behind it.
int64_t ScaleIndex(W4Format format, int row, int64_t col) {
  const int upper = row / 8;
  const int g = row % 8;
  const int half = static_cast<int>(col % kW4TileCols / 32);
  switch (format) {
    case W4Format::kAwq:
      return col / 128 * 32 + g * 4 + upper * 2;
    case W4Format::kQ4_0:
      return col / kW4TileCols * 32 + g * 4 + half * 2 + upper;
    case W4Format::kQ4_1:
      return col / kW4TileCols * 64 + g * 8 + half * 4 + upper * 2;
  }
  return 0;
}

// The memory of one row tile, cleared.
struct RowTile {
  uint8_t* codes;
  uint16_t* scales;
};

RowTile ClearTile(const W4Matrix& matrix, int64_t tile, uint8_t* codes, uint16_t* scales) {
  const int64_t code_bytes = matrix.col_tiles() * kTileBytes;
  const int64_t values = Records(matrix) * RecordValues(matrix.format);
  RowTile out{codes + tile * code_bytes, scales + tile * values};
  std::memset(out.codes, 0, static_cast<size_t>(code_bytes));
  std::memset(out.scales, 0, static_cast<size_t>(values) * sizeof(uint16_t));
  return out;
}

// Bit position in AWQ's int32 of each of its eight rows.
constexpr int kAwqShift[8] = {0, 16, 4, 20, 8, 24, 12, 28};

int AwqNibble(const uint32_t* words, int64_t line, int64_t rows, int64_t row) {
  return static_cast<int>(words[line * (rows / 8) + row / 8] >> kAwqShift[row % 8]) & 0xf;
}

}  // namespace

std::string CheckW4Shape(const W4Matrix& matrix) {
  const int group = W4GroupCols(matrix.format);
  if (matrix.rows < 1 || matrix.cols < 1 || matrix.rows >= kMaxExtent ||
      matrix.cols >= kMaxExtent) {
    return "a 4-bit matrix of " + std::to_string(matrix.rows) + " x " +
           std::to_string(matrix.cols) + ": rows and columns must be from 1 to 2^30 - 1";
  }
  if (matrix.cols % group != 0) {
    return "a 4-bit matrix of " + std::to_string(matrix.cols) +
           " columns: they must be a multiple of " + std::to_string(group) +
           ", the group that shares a scale";
  }
  return "";
}

int64_t W4CodeBytes(const W4Matrix& matrix) {
  return matrix.row_tiles() * matrix.col_tiles() * kTileBytes;
}

int64_t W4ScaleBytes(const W4Matrix& matrix) {
  return matrix.row_tiles() * Records(matrix) * RecordValues(matrix.format) *
         static_cast<int64_t>(sizeof(uint16_t));
}

void RepackAwq(const W4Matrix& matrix, const AwqTensors& source, int64_t tile_begin,
               int64_t tile_end, uint8_t* codes, uint16_t* scales) {
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    const RowTile out = ClearTile(matrix, tile, codes, scales);
    const int64_t first = tile * kW4TileRows;
    const int rows = static_cast<int>(std::min<int64_t>(kW4TileRows, matrix.rows - first));
    for (int64_t col = 0; col < matrix.cols; ++col) {
      uint8_t* at = out.codes + col / kW4TileCols * kTileBytes;
      for (int r = 0; r < rows; ++r) {
        PutCode(at, r, static_cast<int>(col % kW4TileCols),
                AwqNibble(source.qweight, col, matrix.rows, first + r));
      }
    }
    for (int64_t group = 0; group < matrix.cols / 128; ++group) {
      for (int r = 0; r < rows; ++r) {
        uint16_t* record = out.scales + ScaleIndex(matrix.format, r, group * 128);
        record[0] = source.scales[group * matrix.rows + first + r];
        record[1] = static_cast<uint16_t>(AwqNibble(source.qzeros, group, matrix.rows, first + r));
      }
    }
  }
}

void RepackGguf(const W4Matrix& matrix, const void* source, int64_t tile_begin, int64_t tile_end,
                uint8_t* codes, uint16_t* scales) {
  const WeightType type = matrix.format == W4Format::kQ4_0 ? WeightType::kQ4_0 : WeightType::kQ4_1;
  const int64_t groups = matrix.cols / 32;
  const int64_t row_bytes = groups * FindWeightTypeInfo(type)->block_bytes;
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    const RowTile out = ClearTile(matrix, tile, codes, scales);
    const int64_t first = tile * kW4TileRows;
    const int rows = static_cast<int>(std::min<int64_t>(kW4TileRows, matrix.rows - first));
    for (int r = 0; r < rows; ++r) {
      const uint8_t* row = static_cast<const uint8_t*>(source) + (first + r) * row_bytes;
      for (int64_t group = 0; group < groups; ++group) {
        WeightGroup read;
        ReadWeightGroups(type, row, group, 1, &read);
        uint8_t* at = out.codes + group / 2 * kTileBytes;
        for (int i = 0; i < 32; ++i) {
          PutCode(at, r, static_cast<int>(group % 2) * 32 + i, read.q[i]);
        }
        uint16_t* record = out.scales + ScaleIndex(matrix.format, r, group * 32);
        record[0] = read.d;
        if (matrix.format == W4Format::kQ4_1) record[1] = read.m;
      }
    }
  }
}

void UnpackW4Row(const W4Matrix& matrix, int64_t row, float* out) {
  const int64_t tile = row / kW4TileRows;
  const int r = static_cast<int>(row % kW4TileRows);
  const uint8_t* codes = matrix.codes + tile * matrix.col_tiles() * kTileBytes;
  const uint16_t* scales = matrix.scales + tile * Records(matrix) * RecordValues(matrix.format);
  for (int64_t col = 0; col < matrix.cols; ++col) {
    const int q =
        GetCode(codes + col / kW4TileCols * kTileBytes, r, static_cast<int>(col % kW4TileCols));
    const uint16_t* record = scales + ScaleIndex(matrix.format, r, col);
    const float scale = HalfToFloat(record[0]);
    switch (matrix.format) {
      case W4Format::kAwq:
        out[col] = scale * static_cast<float>(q - record[1]);
        break;
      case W4Format::kQ4_0:
        out[col] = scale * static_cast<float>(q - 8);
        break;
      case W4Format::kQ4_1:
        out[col] = scale * static_cast<float>(q) + HalfToFloat(record[1]);
        break;
    }
  }
}

}  // namespace quern::kernels
