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
uint8_t* Lane16(uint8_t* base, int lanes, int v, int r, int h) {
  return base + ((v * lanes + r) * 2 + h) * 2;
}
const uint8_t* Lane16(const uint8_t* base, int lanes, int v, int r, int h) {
  return base + ((v * lanes + r) * 2 + h) * 2;
}

void OrBits(uint8_t* lane, unsigned value) {
  lane[0] = static_cast<uint8_t>(lane[0] | (value & 0xff));
  lane[1] = static_cast<uint8_t>(lane[1] | (value >> 8));
}

unsigned ReadBits(const uint8_t* lane) { return lane[0] | (lane[1] << 8); }

void Put16(uint8_t* p, uint16_t value) { std::memcpy(p, &value, 2); }
uint16_t Get16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, 2);
  return value;
}

// `group` has been cleared.
void PackGroup(WeightType type, const WeightGroup& g, int lanes, int r, uint8_t* group) {
  const PackedLayout layout = LayoutOf(type);
  if (type == WeightType::kQ6_K) {
    group[r] = g.sc[0];
    group[lanes + r] = g.sc[1];
  } else if (HasHead(type)) {
    group[r] = g.sc[0];
    group[lanes + r] = g.mn;
  } else {
    Put16(group + 2 * r, g.d);
    if (HasMin(type)) Put16(group + 2 * lanes + 2 * r, g.m);
  }
  uint8_t* low = group + layout.scales * lanes;
  uint8_t* high = low + layout.low * lanes;
  for (int k = 0; k < 32; ++k) {
    const int s = k / 2;
    const int h = k % 2;
    if (layout.low == 32) {
      low[(s * lanes + r) * 2 + h] = static_cast<uint8_t>(g.q[k]);
      continue;
    }
    const unsigned q = static_cast<uint8_t>(g.q[k]);
    OrBits(Lane16(low, lanes, s / 4, r, h), (q & 0xf) << (4 * (s % 4)));
    if (layout.high_width == 1) OrBits(Lane16(high, lanes, 0, r, h), (q >> 4) << s);
    if (layout.high_width == 2) OrBits(Lane16(high, lanes, s / 8, r, h), (q >> 4) << (2 * (s % 8)));
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

void PackQuantizedTile(const PackedMatrix& matrix, const uint8_t* source, int64_t tile,
                       uint8_t* out) {
  const WeightTypeInfo& info = *FindWeightTypeInfo(matrix.type);
  const PackedLayout layout = LayoutOf(matrix.type);
  const int lanes = matrix.lanes;
  const int64_t row_bytes = matrix.cols / info.block_elements * info.block_bytes;
  const int64_t block_bytes = static_cast<int64_t>(BlockBytes(matrix.type)) * lanes;
  for (int r = 0; r < lanes; ++r) {
    const int64_t row = tile * lanes + r;
    if (row >= matrix.rows) break;
    for (int64_t g = 0; g < matrix.cols / 32; ++g) {
      WeightGroup group{};
      ReadWeightGroups(matrix.type, source + row * row_bytes, g, 1, &group);
      uint8_t* block = out + g / layout.groups * block_bytes;
      if (layout.head != 0) Put16(block + 2 * r, group.d);
      if (layout.head == 4) Put16(block + 2 * lanes + 2 * r, group.m);
      PackGroup(matrix.type, group, lanes, r,
                block + (layout.head + g % layout.groups * GroupBytes(matrix.type)) * lanes);
    }
  }
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
  const int width = FindWeightTypeInfo(matrix.type)->block_bytes;
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    uint8_t* target = out + tile * tile_bytes;
    std::memset(target, 0, static_cast<size_t>(tile_bytes));
    if (!IsFloatType(matrix.type)) {
      PackQuantizedTile(matrix, bytes, tile, target);
      continue;
    }
    for (int r = 0; r < matrix.lanes && tile * matrix.lanes + r < matrix.rows; ++r) {
      const uint8_t* row = bytes + (tile * matrix.lanes + r) * matrix.cols * width;
      for (int64_t k = 0; k < matrix.cols; ++k) {
        std::memcpy(target + (k * matrix.lanes + r) * width, row + k * width,
                    static_cast<size_t>(width));
      }
    }
  }
}

void UnpackRow(const PackedMatrix& matrix, int64_t row, float* out) {
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
