#include <algorithm>
#include <cstring>

#include "quern/kernels/dequantize.h"
#include "quern/kernels/numeric_types.h"
#include "quern/kernels/packed_layout.h"
#include "quern/kernels/packed_matrix.h"

namespace quern::kernels {
namespace {

bool HasMin(WeightType type) { return type == WeightType::kQ4_1 || type == WeightType::kQ5_1; }
bool HasHead(WeightType type) { return LayoutOf(type).head != 0; }

// 16-bit lane (r, h) of vector v, counted from `base`.
const uint8_t* Lane16(const uint8_t* base, int lanes, int v, int r, int h) {
  return base + ((v * lanes + r) * 2 + h) * 2;
}

unsigned ReadBits(const uint8_t* lane) { return lane[0] | (lane[1] << 8); }

void Put16(uint8_t* p, uint16_t value) { std::memcpy(p, &value, 2); }
uint16_t Get16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, 2);
  return value;
}

// Both 16-bit lanes of a row, h = 0 in the low half: their low bytes are the two low bytes of
// `first`, their high ones those of `second`.
uint32_t Lanes(uint64_t first, uint64_t second) {
  const auto spread = [](uint64_t x) { return ((x | x << 8) & 0x00ff00ff); };
  return static_cast<uint32_t>(spread(first & 0xffff) | spread(second & 0xffff) << 8);
}

// Eight weights to a word, one to a byte: the even bytes belong to h = 0, the odd ones to h = 1.
// Each squeeze leaves, in the two low bytes, the bits of the bytes 0, 2, .. and 1, 3, ... side by
// side. What lies above them is none of the result.
uint64_t SqueezeNibbles(uint64_t x) { return x | x >> 12; }                    // of 4 bytes
uint64_t SqueezePairs(uint64_t x) { return x | x >> 14 | x >> 28 | x >> 42; }  // of 8
uint64_t SqueezeBits(uint64_t x) { return x | x >> 15 | x >> 30 | x >> 45; }   // of 8

template <WeightType kType>
void PackGroup(const WeightGroup& g, int lanes, int r, uint8_t* group) {
  constexpr PackedLayout kLayout = LayoutOf(kType);
  if constexpr (kType == WeightType::kQ6_K) {
    group[r] = g.sc[0];
    group[lanes + r] = g.sc[1];
  } else if constexpr (kLayout.head != 0) {
    group[r] = g.sc[0];
    group[lanes + r] = g.mn;
  } else {
    Put16(group + 2 * r, g.d);
    if constexpr (kLayout.scales == 4) Put16(group + 2 * lanes + 2 * r, g.m);
  }
  uint8_t* low = group + kLayout.scales * lanes;
  if constexpr (kLayout.low == 32) {
    for (int s = 0; s < 16; ++s) std::memcpy(low + (s * lanes + r) * 2, g.q + 2 * s, 2);
    return;
  }
  constexpr uint64_t kInEachByte = 0x0101010101010101;
  uint64_t q[4];
  std::memcpy(q, g.q, sizeof(q));
  const auto put = [lanes, r](uint8_t* base, int v, uint32_t both) {
    std::memcpy(base + (v * lanes + r) * 4, &both, 4);
  };
  for (int v = 0; v < 4; ++v) {
    const uint64_t pairs = SqueezeNibbles(q[v] & 0xf * kInEachByte);
    put(low, v, Lanes(pairs, pairs >> 32));
  }
  uint8_t* high = low + kLayout.low * lanes;
  if constexpr (kLayout.high_width == 1) {
    const auto fifth = [&](int v) { return q[v] >> 4 & kInEachByte; };
    put(high, 0,
        Lanes(SqueezeBits(fifth(0) | fifth(1) << 4), SqueezeBits(fifth(2) | fifth(3) << 4)));
  }
  if constexpr (kLayout.high_width == 2) {
    const auto upper = [&](int v) { return q[v] >> 4 & 3 * kInEachByte; };
    put(high, 0, Lanes(SqueezePairs(upper(0)), SqueezePairs(upper(1))));
    put(high, 1, Lanes(SqueezePairs(upper(2)), SqueezePairs(upper(3))));
  }
}

void UnpackGroup(WeightType type, const uint8_t* head, const uint8_t* group, int lanes, int r,
                 float* out) {
  const PackedLayout layout = LayoutOf(type);
  const float d = HalfToFloat(Get16((HasHead(type) ? head : group) + 2 * r));
  const uint8_t* low = group + layout.scales * lanes;
  const uint8_t* high = low + layout.low * lanes;
  for (int k = 0; k < 32; ++k) {
    const int s = k / 2;
    const int h = k % 2;
    if (layout.low == 32) {
      out[k] = d * static_cast<float>(static_cast<int8_t>(low[(s * lanes + r) * 2 + h]));
      continue;
    }
    unsigned q = (ReadBits(Lane16(low, lanes, s / 4, r, h)) >> (4 * (s % 4))) & 0xf;
    if (layout.high_width == 1) q |= ((ReadBits(Lane16(high, lanes, 0, r, h)) >> s) & 1) << 4;
    if (layout.high_width == 2)
      q |= ((ReadBits(Lane16(high, lanes, s / 8, r, h)) >> (2 * (s % 8))) & 3) << 4;
    const auto value = static_cast<float>(static_cast<int>(q) - layout.offset);
    if (type == WeightType::kQ6_K) {
      out[k] = d * static_cast<float>(static_cast<int8_t>(group[k / 16 * lanes + r])) * value;
    } else if (HasHead(type)) {
      const float dmin = HalfToFloat(Get16(head + 2 * lanes + 2 * r));
      out[k] =
          d * static_cast<float>(group[r]) * value - dmin * static_cast<float>(group[lanes + r]);
    } else if (HasMin(type)) {
      out[k] = d * value + HalfToFloat(Get16(group + 2 * lanes + 2 * r));
    } else {
      out[k] = d * value;
    }
  }
}

// Rows [tile * lanes, ...) of the matrix, as far as it has them; writes every byte of theirs.
template <WeightType kType>
void PackQuantizedTile(const PackedMatrix& matrix, const uint8_t* source, int64_t tile,
                       uint8_t* out) {
  constexpr PackedLayout kLayout = LayoutOf(kType);
  const WeightTypeInfo& info = *FindWeightTypeInfo(kType);
  const int lanes = matrix.lanes;
  const int64_t row_bytes = matrix.cols / info.block_elements * info.block_bytes;
  const int64_t groups = matrix.cols / 32;
  const auto rows = static_cast<int>(std::min<int64_t>(lanes, matrix.rows - tile * lanes));
  const uint8_t* first_row = source + tile * lanes * row_bytes;
  // Whole blocks of a K type, and for the others so many groups that reading them costs one call.
  constexpr int kAtOnce = 8;
  for (int64_t first = 0; first < groups; first += kAtOnce) {
    const auto count = static_cast<int>(std::min<int64_t>(kAtOnce, groups - first));
    uint8_t* block = out + first / kLayout.groups * BlockBytes(kType) * lanes;
    for (int r = 0; r < rows; ++r) {
      WeightGroup read[kAtOnce];
      ReadWeightGroups(kType, first_row + r * row_bytes, first, count, read);
      if constexpr (kLayout.head != 0) Put16(block + 2 * r, read[0].d);
      if constexpr (kLayout.head == 4) Put16(block + 2 * lanes + 2 * r, read[0].m);
      for (int i = 0; i < count; ++i) {
        PackGroup<kType>(read[i], lanes, r, block + (kLayout.head + i * GroupBytes(kType)) * lanes);
      }
    }
  }
}

// The same of a Q8_0 matrix in planes.
void PackPlanesTile(const PackedMatrix& matrix, const uint8_t* source, int64_t tile, uint8_t* out) {
  constexpr uint64_t kNibbles = 0x0f0f0f0f0f0f0f0f;
  constexpr uint64_t kSigns = 0x8080808080808080;
  const WeightTypeInfo& info = *FindWeightTypeInfo(matrix.type);
  const int lanes = matrix.lanes;
  const int64_t groups = matrix.cols / 32;
  const auto rows = static_cast<int>(std::min<int64_t>(lanes, matrix.rows - tile * lanes));
  uint8_t* scales = out + matrix.high_offset(tile);
  uint8_t* high = scales + groups * 2 * lanes;
  uint8_t* low = out + matrix.low_offset(tile);
  for (int r = 0; r < rows; ++r) {
    const uint8_t* block = source + (tile * lanes + r) * groups * info.block_bytes;
    for (int64_t g = 0; g < groups; ++g, block += info.block_bytes) {
      std::memcpy(scales + (g * lanes + r) * 2, block, 2);
      uint64_t q[4];
      std::memcpy(q, block + 2, sizeof(q));
      for (int v = 0; v < 4; ++v) {
        const uint64_t biased = q[v] ^ kSigns;  // + 128
        const int64_t at = ((g * 4 + v) * lanes + r) * 4;
        const uint64_t upper = SqueezeNibbles(biased >> 4 & kNibbles);
        const uint64_t lower = SqueezeNibbles(biased & kNibbles);
        const uint32_t u = Lanes(upper, upper >> 32);
        const uint32_t l = Lanes(lower, lower >> 32);
        const auto turned = static_cast<uint32_t>((l & kNibbles) << 4 | (l >> 4 & kNibbles));
        std::memcpy(high + at, &u, 4);
        std::memcpy(low + at, &turned, 4);
      }
    }
  }
}

void UnpackPlanesRow(const PackedMatrix& matrix, int64_t row, float* out) {
  const int lanes = matrix.lanes;
  const int64_t groups = matrix.cols / 32;
  const int64_t tile = row / lanes;
  const auto r = static_cast<int>(row % lanes);
  const uint8_t* scales = matrix.data + matrix.high_offset(tile);
  const uint8_t* high = scales + groups * 2 * lanes;
  const uint8_t* low = matrix.data + matrix.low_offset(tile);
  for (int64_t k = 0; k < matrix.cols; ++k) {
    const int64_t g = k / 32;
    const auto s = static_cast<int>(k % 32 / 2);
    const auto h = static_cast<int>(k % 2);
    const int64_t group = g * 16 * lanes;
    const unsigned u = ReadBits(Lane16(high + group, lanes, s / 4, r, h)) >> (4 * (s % 4)) & 15;
    const unsigned l = ReadBits(Lane16(low + group, lanes, s / 4, r, h)) >> (4 * (s % 4 ^ 1)) & 15;
    const int q = static_cast<int>(16 * u + l) - 128;
    out[k] = HalfToFloat(Get16(scales + (g * lanes + r) * 2)) * static_cast<float>(q);
  }
}

// [row][col] of the stored type to [col][row].
template <typename Stored>
void PackFloatTile(const PackedMatrix& matrix, const uint8_t* source, int64_t tile, uint8_t* out) {
  const int lanes = matrix.lanes;
  const auto rows = static_cast<int>(std::min<int64_t>(lanes, matrix.rows - tile * lanes));
  const auto width = static_cast<int64_t>(sizeof(Stored));
  const uint8_t* first_row = source + tile * lanes * matrix.cols * width;
  for (int64_t k = 0; k < matrix.cols; ++k) {
    for (int r = 0; r < rows; ++r) {
      Stored value;
      std::memcpy(&value, first_row + (r * matrix.cols + k) * width, sizeof(value));
      std::memcpy(out + (k * lanes + r) * width, &value, sizeof(value));
    }
  }
}

using PackTile = void (*)(const PackedMatrix&, const uint8_t*, int64_t, uint8_t*);

PackTile PackTileOf(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return PackFloatTile<uint32_t>;
    case WeightType::kF16:
    case WeightType::kBF16:
      return PackFloatTile<uint16_t>;
    case WeightType::kQ4_0:
      return PackQuantizedTile<WeightType::kQ4_0>;
    case WeightType::kQ4_1:
      return PackQuantizedTile<WeightType::kQ4_1>;
    case WeightType::kQ5_0:
      return PackQuantizedTile<WeightType::kQ5_0>;
    case WeightType::kQ5_1:
      return PackQuantizedTile<WeightType::kQ5_1>;
    case WeightType::kQ8_0:
      return PackQuantizedTile<WeightType::kQ8_0>;
    case WeightType::kQ4_K:
      return PackQuantizedTile<WeightType::kQ4_K>;
    case WeightType::kQ5_K:
      return PackQuantizedTile<WeightType::kQ5_K>;
    case WeightType::kQ6_K:
      return PackQuantizedTile<WeightType::kQ6_K>;
  }
  return nullptr;  // not reached: every type is above
}

}  // namespace

int64_t PackedTileBytes(WeightType type, int lanes, int64_t cols) {
  if (IsFloatType(type)) return cols * lanes * FindWeightTypeInfo(type)->block_bytes;
  return cols / (32 * LayoutOf(type).groups) * BlockBytes(type) * lanes;  // NOLINT: at least 1
}

void PackTiles(const PackedMatrix& matrix, const void* source, int64_t tile_begin, int64_t tile_end,
               uint8_t* out) {
  const auto* bytes = static_cast<const uint8_t*>(source);
  const int64_t tile_bytes = PackedTileBytes(matrix.type, matrix.lanes, matrix.cols);
  const PackTile pack = PackTileOf(matrix.type);
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    if (matrix.planes) {
      if ((tile + 1) * matrix.lanes > matrix.rows) {
        std::memset(out + matrix.high_offset(tile), 0,
                    static_cast<size_t>(matrix.high_tile_bytes()));
        std::memset(out + matrix.low_offset(tile), 0, static_cast<size_t>(matrix.low_tile_bytes()));
      }
      PackPlanesTile(matrix, bytes, tile, out);
      continue;
    }
    uint8_t* target = out + tile * tile_bytes;
    if ((tile + 1) * matrix.lanes > matrix.rows) {  // the rows that it lacks are zeros
      std::memset(target, 0, static_cast<size_t>(tile_bytes));
    }
    pack(matrix, bytes, tile, target);
  }
}

void UnpackRow(const PackedMatrix& matrix, int64_t row, float* out) {
  if (matrix.planes) return UnpackPlanesRow(matrix, row, out);
  const int lanes = matrix.lanes;
  const int r = static_cast<int>(row % lanes);
  const uint8_t* tile =
      matrix.data + row / lanes * PackedTileBytes(matrix.type, lanes, matrix.cols);
  if (IsFloatType(matrix.type)) {
    const int width = FindWeightTypeInfo(matrix.type)->block_bytes;
    for (int64_t k = 0; k < matrix.cols; ++k) {
      ref::DequantizeRow(matrix.type, tile + (k * lanes + r) * width, 1, out + k);
    }
    return;
  }
  const PackedLayout layout = LayoutOf(matrix.type);
  for (int64_t g = 0; g < matrix.cols / 32; ++g) {
    const uint8_t* block = tile + g / layout.groups * BlockBytes(matrix.type) * lanes;
    UnpackGroup(matrix.type, block,
                block + (layout.head + g % layout.groups * GroupBytes(matrix.type)) * lanes, lanes,
                r, out + 32 * g);
  }
}

}  // namespace quern::kernels
