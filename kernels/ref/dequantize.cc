#include "quern/kernels/dequantize.h"

#include <algorithm>
#include <cstring>

#include "quern/kernels/numeric_types.h"

namespace quern::kernels {
namespace {

uint16_t Load16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | (p[1] << 8)); }

// Eight elements at a time, one to a byte: loading a model reads every weight once.
constexpr uint64_t kEachByte = 0x0101010101010101;

uint64_t Load64(const uint8_t* p) {
  uint64_t bytes;
  std::memcpy(&bytes, p, 8);
  return bytes;
}

void Store64(int8_t* q, uint64_t bytes) { std::memcpy(q, &bytes, 8); }

uint64_t LowNibbles(uint64_t bytes) { return bytes & 0xf * kEachByte; }

// Low nibbles are elements 0..15, high nibbles 16..31 (all 32-element types).
void ReadNibbles(const uint8_t* qs, int8_t* q) {
  for (int i = 0; i < 16; i += 8) {
    Store64(q + i, LowNibbles(Load64(qs + i)));
    Store64(q + i + 16, LowNibbles(Load64(qs + i) >> 4));
  }
}

void OrInto(int8_t* q, uint64_t bytes) {
  uint64_t old;
  std::memcpy(&old, q, 8);
  Store64(q, old | bytes);
}

void AddFifthBits(const uint8_t* qh, int8_t* q) {
  for (int i = 0; i < 32; i += 8) {
    // Bit k of the byte alone in byte k; then bit 7 of those that are not 0.
    const uint64_t bits = qh[i / 8] * kEachByte & 0x8040201008040201;
    OrInto(q + i, ((bits + 0x7f * kEachByte) >> 7 & kEachByte) << 4);
  }
}

// 6-bit scale and minimum number `j` of 8 out of 12 bytes (Q4_K, Q5_K).
void ReadScaleAndMin(const uint8_t* s, int j, WeightGroup* out) {
  if (j < 4) {
    out->sc[0] = s[j] & 63;
    out->mn = s[j + 4] & 63;
  } else {
    out->sc[0] = static_cast<uint8_t>((s[j + 4] & 0xf) | ((s[j - 4] >> 6) << 4));
    out->mn = static_cast<uint8_t>((s[j + 4] >> 4) | ((s[j] >> 6) << 4));
  }
}

// Group `j` (0..7) of a super-block of 256: Q4_K keeps pairs of groups in the low and high nibbles
// of 32 bytes.
void ReadKNibbles(const uint8_t* qs, int j, int8_t* q) {
  const uint8_t* bytes = qs + 32 * (j / 2);
  for (int i = 0; i < 32; i += 8) Store64(q + i, LowNibbles(Load64(bytes + i) >> (4 * (j % 2))));
}

void ReadQ4K(const uint8_t* block, int j, WeightGroup* out) {
  out->d = Load16(block);
  out->m = Load16(block + 2);
  ReadScaleAndMin(block + 4, j, out);
  ReadKNibbles(block + 16, j, out->q);
}

void ReadQ5K(const uint8_t* block, int j, WeightGroup* out) {
  out->d = Load16(block);
  out->m = Load16(block + 2);
  ReadScaleAndMin(block + 4, j, out);
  const uint8_t* qh = block + 16;
  ReadKNibbles(block + 48, j, out->q);
  for (int i = 0; i < 32; i += 8) OrInto(out->q + i, (Load64(qh + i) >> j & kEachByte) << 4);
}

// ql[128] qh[64] scales[16] d: each half of 128 elements is four runs of 32 that share 64 bytes of
// nibbles and 32 bytes of upper bits.
void ReadQ6K(const uint8_t* block, int j, WeightGroup* out) {
  const int half = j / 4;
  const int run = j % 4;
  const uint8_t* ql = block + 64 * half + 32 * (run % 2);
  const uint8_t* qh = block + 128 + 32 * half;
  const uint8_t* scales = block + 192 + 8 * half + 2 * run;
  out->d = Load16(block + 208);
  out->sc[0] = scales[0];
  out->sc[1] = scales[1];
  for (int i = 0; i < 32; i += 8) {
    const uint64_t upper = Load64(qh + i) >> (2 * run) & 3 * kEachByte;
    Store64(out->q + i, LowNibbles(Load64(ql + i) >> (4 * (run / 2))) | upper << 4);
  }
}

// Group `j` of a block.
void ReadGroup(WeightType type, const uint8_t* block, int j, WeightGroup* out) {
  switch (type) {
    case WeightType::kQ4_0:
      out->d = Load16(block);
      ReadNibbles(block + 2, out->q);
      break;
    case WeightType::kQ4_1:
      out->d = Load16(block);
      out->m = Load16(block + 2);
      ReadNibbles(block + 4, out->q);
      break;
    case WeightType::kQ5_0:
      out->d = Load16(block);
      ReadNibbles(block + 6, out->q);
      AddFifthBits(block + 2, out->q);
      break;
    case WeightType::kQ5_1:
      out->d = Load16(block);
      out->m = Load16(block + 2);
      ReadNibbles(block + 8, out->q);
      AddFifthBits(block + 4, out->q);
      break;
    case WeightType::kQ8_0:
      out->d = Load16(block);
      std::memcpy(out->q, block + 2, 32);
      break;
    case WeightType::kQ4_K:
      ReadQ4K(block, j, out);
      break;
    case WeightType::kQ5_K:
      ReadQ5K(block, j, out);
      break;
    case WeightType::kQ6_K:
      ReadQ6K(block, j, out);
      break;
    case WeightType::kF32:
    case WeightType::kF16:
    case WeightType::kBF16:
      break;
  }
}

void DequantizeGroup(WeightType type, const WeightGroup& g, float* out) {
  const float d = HalfToFloat(g.d);
  const float m = HalfToFloat(g.m);
  for (int i = 0; i < 32; ++i) {
    const int q = g.q[i];
    switch (type) {
      case WeightType::kQ4_0:
        out[i] = d * static_cast<float>(q - 8);
        break;
      case WeightType::kQ5_0:
        out[i] = d * static_cast<float>(q - 16);
        break;
      case WeightType::kQ8_0:
        out[i] = d * static_cast<float>(q);
        break;
      case WeightType::kQ4_1:
      case WeightType::kQ5_1:
        out[i] = d * static_cast<float>(q) + m;
        break;
      case WeightType::kQ6_K:
        out[i] =
            d * static_cast<float>(static_cast<int8_t>(g.sc[i / 16])) * static_cast<float>(q - 32);
        break;
      default:
        out[i] =
            d * static_cast<float>(g.sc[0]) * static_cast<float>(q) - m * static_cast<float>(g.mn);
    }
  }
}

}  // namespace

const WeightTypeInfo* FindWeightTypeInfo(WeightType type) {
  static constexpr struct {
    WeightType type;
    WeightTypeInfo info;
  } kTable[] = {
      {WeightType::kF32, {"F32", 1, 4}},       {WeightType::kF16, {"F16", 1, 2}},
      {WeightType::kBF16, {"BF16", 1, 2}},     {WeightType::kQ4_0, {"Q4_0", 32, 18}},
      {WeightType::kQ4_1, {"Q4_1", 32, 20}},   {WeightType::kQ5_0, {"Q5_0", 32, 22}},
      {WeightType::kQ5_1, {"Q5_1", 32, 24}},   {WeightType::kQ8_0, {"Q8_0", 32, 34}},
      {WeightType::kQ4_K, {"Q4_K", 256, 144}}, {WeightType::kQ5_K, {"Q5_K", 256, 176}},
      {WeightType::kQ6_K, {"Q6_K", 256, 210}},
  };
  for (const auto& row : kTable) {
    if (row.type == type) return &row.info;
  }
  return nullptr;
}

void ReadWeightGroups(WeightType type, const void* row, int64_t first, int64_t groups,
                      WeightGroup* out) {
  const WeightTypeInfo& info = *FindWeightTypeInfo(type);
  const int groups_per_block = info.block_elements / 32;
  const auto* bytes = static_cast<const uint8_t*>(row);
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t block = (first + i) / groups_per_block;
    ReadGroup(type, bytes + block * info.block_bytes,
              static_cast<int>(first + i - block * groups_per_block), out + i);
  }
}

namespace ref {

void DequantizeRow(WeightType type, const void* row, int64_t n, float* out) {
  if (type == WeightType::kF32) {
    std::memcpy(out, row, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  if (IsFloatType(type)) {
    const auto* bytes = static_cast<const uint8_t*>(row);
    for (int64_t i = 0; i < n; ++i) {
      const uint16_t raw = Load16(bytes + 2 * i);
      out[i] = type == WeightType::kF16 ? HalfToFloat(raw) : Bf16ToFloat(raw);
    }
    return;
  }
  for (int64_t group = 0; group < n / 32; ++group) {
    WeightGroup g{};
    ReadWeightGroups(type, row, group, 1, &g);
    DequantizeGroup(type, g, out + 32 * group);
  }
}

}  // namespace ref
}  // namespace quern::kernels
