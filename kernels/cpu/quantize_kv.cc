#include <cmath>
#include <cstring>

#include "quern/kernels/kv_format.h"
#include "quern/kernels/numeric_types.h"

namespace quern::kernels {
namespace {

// Half-way between the positive levels.
constexpr float kInt4Borders[7] = {12.0f, 24.5f, 37.5f, 51.0f, 66.5f, 85.5f, 111.5f};
constexpr int kInt4Fits = 2;

// To nearest, for the range of an int.
int Round(float x) { return static_cast<int>(x + (x < 0 ? -0.5f : 0.5f)); }

float LargestMagnitude(const float* x) {
  float largest = 0;
  for (int i = 0; i < kKvGroup; ++i)
    largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
  return largest;
}

bool AllFinite(const float* x) {
  float zero = 0;  // NaN where a value is no number
  for (int i = 0; i < kKvGroup; ++i) zero += x[i] * 0;
  return zero == 0;
}

// The scale as it is stored; returns its value.
float StoreScale(float scale, uint8_t* group) {
  const uint16_t half = FloatToHalf(scale > 65504.0f ? 65504.0f : scale);
  std::memcpy(group, &half, sizeof(half));
  return HalfToFloat(half);
}

float InverseOf(float scale) { return scale > 0 ? 1.0f / scale : 0.0f; }

void QuantizeInt8(const float* x, uint8_t* group) {
  const float inverse = InverseOf(StoreScale(LargestMagnitude(x) / 127.0f, group));
  for (int i = 0; i < kKvGroup; ++i) {
    float q = x[i] * inverse;
    q = q > 127.0f ? 127.0f : q;
    q = q < -127.0f ? -127.0f : q;
    group[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(Round(q)));
  }
}

// Indices of the levels nearest to x / scale.
void NearestLevels(const float* x, float scale, int32_t* indices) {
  const float inverse = InverseOf(scale);
  for (int i = 0; i < kKvGroup; ++i) {
    const float magnitude = std::fabs(x[i]) * inverse;
    int32_t above = 0;
    for (const float border : kInt4Borders) above += magnitude > border ? 1 : 0;
    indices[i] = x[i] < 0 ? 7 - above : 8 + above;
  }
}

// Lloyd's iteration: levels for a scale, then the scale that fits these levels best.
void QuantizeInt4(const float* x, uint8_t* group) {
  int32_t indices[kKvGroup];
  float scale = LargestMagnitude(x) / 127.0f;
  for (int fit = 0; fit < kInt4Fits; ++fit) {
    NearestLevels(x, scale, indices);
    float product = 0;
    float squares = 0;
    for (int i = 0; i < kKvGroup; ++i) {
      const float level = kInt4Levels[indices[i]];
      product += x[i] * level;
      squares += level * level;
    }
    scale = product / squares;
  }
  NearestLevels(x, StoreScale(scale, group), indices);
  for (int i = 0; i < kKvGroup / 2; ++i) {
    group[2 + i] = static_cast<uint8_t>(indices[i] | (indices[i + kKvGroup / 2] << 4));
  }
}

}  // namespace

void QuantizeKvHead(KvDtype dtype, const float* x, int head_dim, uint8_t* groups) {
  for (int begin = 0; begin < head_dim; begin += kKvGroup, groups += KvGroupBytes(dtype)) {
    float padded[kKvGroup] = {};
    const float* values = x + begin;
    if (head_dim - begin < kKvGroup) {
      for (int i = 0; begin + i < head_dim; ++i) padded[i] = x[begin + i];
      values = padded;
    }
    if (!AllFinite(values)) {
      std::memset(groups, 0, static_cast<size_t>(KvGroupBytes(dtype)));
      StoreScale(NAN, groups);
    } else if (dtype == KvDtype::kInt8) {
      QuantizeInt8(values, groups);
    } else {
      QuantizeInt4(values, groups);
    }
  }
}

namespace ref {

void DequantizeKvHead(KvDtype dtype, const uint8_t* groups, int head_dim, float* x) {
  for (int i = 0; i < head_dim; ++i) {
    const uint8_t* group = groups + i / kKvGroup * KvGroupBytes(dtype);
    uint16_t half;
    std::memcpy(&half, group, sizeof(half));
    const int at = i % kKvGroup;
    const int8_t q = dtype == KvDtype::kInt8
                         ? static_cast<int8_t>(group[2 + at])
                         : kInt4Levels[(group[2 + at % 16] >> (at / 16 * 4)) & 15];
    x[i] = HalfToFloat(half) * static_cast<float>(q);
  }
}

}  // namespace ref
}  // namespace quern::kernels
