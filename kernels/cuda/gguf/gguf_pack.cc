#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/cuda/gguf/gguf_layout.h"
#include "quern/kernels/dequantize.h"
#include "quern/kernels/gguf_weights.h"
#include "quern/kernels/numeric_types.h"

namespace quern::kernels {
namespace {

constexpr int64_t kMaxExtent = int64_t{1} << 29;

int64_t Blocks(const GgufMatrix& matrix) {
  return matrix.cols / (32 * GgufBlockGroups(matrix.type));
}

// A row of a tile: i, u and g of the layout's description.
struct RowPlace {
  int i, u, g;
  explicit RowPlace(int row) : i(row / 16), u(row % 2), g(row / 2 % 8) {}
  // Where the row's number lies in a P, in uint16, and in a B, in bytes.
  int InPairs() const { return (i * 8 + g) * 2 + u; }
  int InBytes() const { return g * 4 + i * 2 + u; }
};

// Where a code lies in the codes of its group: `low` bits, and `high` more. Their first bits are at
// the sum of what the row and the column say.
struct CodePlaces {
  int low, high;
  std::array<int, 32> low_col, high_col;
  int low_row, high_row;
};

// For the columns; the rows' parts are FindRow's.
CodePlaces PlacesOf(WeightType type) {
  CodePlaces places{type == WeightType::kQ8_0 ? 8 : 4, 0, {}, {}, 0, 0};
  if (type == WeightType::kQ5_0) places.high = 1;
  if (type == WeightType::kQ6_K) places.high = 2;
  for (int col = 0; col < 32; ++col) {
    const int s = col / 16;
    const int h = col / 8 % 2;
    const int t = col / 2 % 4;
    const int e = col % 2;
    const auto c = static_cast<size_t>(col);
    places.low_col[c] =
        places.low == 8 ? 8 * (16 * t + 8 * s + 4 * h + 2 * e) : 8 * (16 * t + 4 * s + h + 2 * e);
    places.high_col[c] =
        places.high == 1 ? 32 * t + 4 * s + 2 * h + 16 * e : 64 * t + 8 * s + 4 * h + 16 * e;
  }
  return places;
}

void FindRow(const RowPlace& row, CodePlaces* places) {
  places->low_row = places->low == 8 ? 8 * (512 * row.i + 64 * row.g + row.u)
                                     : 8 * (64 * row.g + 8 * row.i) + 4 * row.u;
  places->high_row = 8 * 512 + (places->high == 1 ? 128 * row.g + 8 * row.i + row.u
                                                  : 256 * row.g + 32 * row.i + 2 * row.u);
}

// `count` bits at bit `at`, which lie in one byte.
int GetBits(const uint8_t* from, int at, int count) {
  return from[at / 8] >> (at % 8) & ((1 << count) - 1);
}
void PutBits(uint8_t* to, int at, int count, int bits) {
  to[at / 8] |= static_cast<uint8_t>((bits & ((1 << count) - 1)) << (at % 8));
}

uint16_t Get16(const uint8_t* from, int index) {
  uint16_t value;
  std::memcpy(&value, from + 2 * index, 2);
  return value;
}
void Put16(uint8_t* to, int index, uint16_t value) { std::memcpy(to + 2 * index, &value, 2); }

void PutCodes(const CodePlaces& places, const WeightGroup& group, uint8_t* codes) {
  for (size_t col = 0; col < 32; ++col) {
    PutBits(codes, places.low_row + places.low_col[col], places.low, group.q[col]);
  }
  for (size_t col = 0; places.high != 0 && col < 32; ++col) {
    PutBits(codes, places.high_row + places.high_col[col], places.high, group.q[col] >> 4);
  }
}

void GetCodes(const CodePlaces& places, const uint8_t* codes, WeightGroup* group) {
  for (size_t col = 0; col < 32; ++col) {
    int q = GetBits(codes, places.low_row + places.low_col[col], places.low);
    if (places.high != 0) {
      q |= GetBits(codes, places.high_row + places.high_col[col], places.high) << 4;
    }
    group->q[col] = static_cast<int8_t>(q);
  }
}

// Group `j` of its block: the record's share of a row.
void PutRecord(WeightType type, const RowPlace& row, int j, const WeightGroup& read, uint8_t* to) {
  switch (type) {
    case WeightType::kQ4_1:
      Put16(to + 64, row.InPairs(), read.m);
      break;
    case WeightType::kQ4_K: {
      Put16(to + 64, row.InPairs(), read.m);
      const int at = 8 * row.InBytes();
      PutBits(to + 128 + 32 * j, at, 4, read.sc[0]);
      PutBits(to + 128 + 32 * j, at + 4, 4, read.mn);
      PutBits(to + 384 + 32 * (j / 2), at + j % 2 * 4, 2, read.sc[0] >> 4);
      PutBits(to + 384 + 32 * (j / 2), at + j % 2 * 4 + 2, 2, read.mn >> 4);
      break;
    }
    case WeightType::kQ6_K:
      for (int s = 0; s < 2; ++s) to[(2 * j + s) * 32 + row.InBytes()] = read.sc[s];
      to += 512;
      break;
    default:
      break;
  }
  Put16(to, row.InPairs(), read.d);
}

void GetRecord(WeightType type, const RowPlace& row, int j, const uint8_t* from, WeightGroup* out) {
  switch (type) {
    case WeightType::kQ4_1:
      out->m = Get16(from + 64, row.InPairs());
      break;
    case WeightType::kQ4_K: {
      out->m = Get16(from + 64, row.InPairs());
      const int at = 8 * row.InBytes();
      const uint8_t* low = from + 128 + 32 * j;
      const uint8_t* high = from + 384 + 32 * (j / 2);
      out->sc[0] =
          static_cast<uint8_t>(GetBits(low, at, 4) | GetBits(high, at + j % 2 * 4, 2) << 4);
      out->mn =
          static_cast<uint8_t>(GetBits(low, at + 4, 4) | GetBits(high, at + j % 2 * 4 + 2, 2) << 4);
      break;
    }
    case WeightType::kQ6_K:
      for (int s = 0; s < 2; ++s) out->sc[s] = from[(2 * j + s) * 32 + row.InBytes()];
      from += 512;
      break;
    default:
      break;
  }
  out->d = Get16(from, row.InPairs());
}

float Value(WeightType type, const WeightGroup& group, int col) {
  const float d = HalfToFloat(group.d);
  const float m = HalfToFloat(group.m);
  const auto q = static_cast<float>(group.q[col]);
  switch (type) {
    case WeightType::kQ4_0:
      return d * (q - 8);
    case WeightType::kQ5_0:
      return d * (q - 16);
    case WeightType::kQ4_1:
      return d * q + m;
    case WeightType::kQ4_K:
      return d * static_cast<float>(group.sc[0]) * q - m * static_cast<float>(group.mn);
    case WeightType::kQ6_K:
      return d * static_cast<float>(static_cast<int8_t>(group.sc[col / 16])) * (q - 32);
    default:
      return d * q;
  }
}

}  // namespace

std::string CheckGgufShape(const GgufMatrix& matrix) {
  const WeightTypeInfo* info = FindWeightTypeInfo(matrix.type);
  if (info == nullptr || GgufCodeBytes(matrix.type) == 0) {
    return std::string("weights of type ") +
           (info != nullptr ? info->name
                            : std::to_string(static_cast<uint32_t>(matrix.type)).c_str()) +
           " have no layout for the GPU; Q4_0, Q4_1, Q5_0, Q8_0, Q4_K and Q6_K have";
  }
  if (matrix.rows < 1 || matrix.cols < 1 || matrix.rows >= kMaxExtent ||
      matrix.cols >= kMaxExtent) {
    return "a matrix of " + std::to_string(matrix.rows) + " x " + std::to_string(matrix.cols) +
           "; rows and columns must be from 1 to 2^29 - 1";
  }
  if (matrix.cols % info->block_elements != 0) {
    return "a " + std::string(info->name) + " matrix of " + std::to_string(matrix.cols) +
           " columns; they must be a multiple of " + std::to_string(info->block_elements);
  }
  return "";
}

int64_t GgufBytes(const GgufMatrix& matrix) {
  return matrix.row_tiles() * Blocks(matrix) * GgufBlockBytes(matrix.type);
}

void PackGgufTiles(const GgufMatrix& matrix, const void* source, int64_t tile_begin,
                   int64_t tile_end, uint8_t* data) {
  const WeightTypeInfo& info = *FindWeightTypeInfo(matrix.type);
  const int block_groups = GgufBlockGroups(matrix.type);
  const int code_bytes = GgufCodeBytes(matrix.type);
  const int64_t tile_bytes = Blocks(matrix) * GgufBlockBytes(matrix.type);
  const int64_t row_bytes = matrix.cols / info.block_elements * info.block_bytes;
  CodePlaces places = PlacesOf(matrix.type);
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    uint8_t* out = data + tile * tile_bytes;
    // A row beyond the matrix has scales of zero, whatever its codes say.
    std::memset(out, 0, static_cast<size_t>(tile_bytes));
    const int64_t first = tile * kGgufTileRows;
    const int rows = static_cast<int>(std::min<int64_t>(kGgufTileRows, matrix.rows - first));
    for (int r = 0; r < rows; ++r) {
      const RowPlace row(r);
      FindRow(row, &places);
      const uint8_t* from = static_cast<const uint8_t*>(source) + (first + r) * row_bytes;
      for (int64_t group = 0; group < matrix.cols / 32; ++group) {
        WeightGroup read;
        ReadWeightGroups(matrix.type, from, group, 1, &read);
        uint8_t* block = out + group / block_groups * GgufBlockBytes(matrix.type);
        const int j = static_cast<int>(group % block_groups);
        PutCodes(places, read, block + j * code_bytes);
        PutRecord(matrix.type, row, j, read, block + block_groups * code_bytes);
      }
    }
  }
}

void UnpackGgufRow(const GgufMatrix& matrix, int64_t row, float* out) {
  const int block_groups = GgufBlockGroups(matrix.type);
  const int code_bytes = GgufCodeBytes(matrix.type);
  const uint8_t* tile =
      matrix.data + row / kGgufTileRows * Blocks(matrix) * GgufBlockBytes(matrix.type);
  const RowPlace place(static_cast<int>(row % kGgufTileRows));
  CodePlaces places = PlacesOf(matrix.type);
  FindRow(place, &places);
  for (int64_t group = 0; group < matrix.cols / 32; ++group) {
    const uint8_t* block = tile + group / block_groups * GgufBlockBytes(matrix.type);
    const int j = static_cast<int>(group % block_groups);
    const uint8_t* codes = block + j * code_bytes;
    WeightGroup read{};
    GetRecord(matrix.type, place, j, block + block_groups * code_bytes, &read);
    GetCodes(places, codes, &read);
    for (int col = 0; col < 32; ++col) out[32 * group + col] = Value(matrix.type, read, col);
  }
}

}  // namespace quern::kernels
