#include "quern/kernels/device_kv.h"

#include <cmath>

#include "quern/kernels/numeric_types.h"

namespace quern::kernels::ref {
namespace {

// OCP 8-bit Floating Point Specification, E4M3: bias 7, no infinities, one NaN of each sign.
float E4m3ToFloat(uint8_t bits) {
  const int exponent = bits >> 3 & 15;
  const int fraction = bits & 7;
  if ((bits & 0x7f) == 0x7f) return NAN;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return static_cast<float>((bits & 0x80) != 0 ? -magnitude : magnitude);
}

float Code(DeviceKvFormat format, const uint8_t* codes, int i) {
  switch (format) {
    case DeviceKvFormat::kInt8:
      return static_cast<int8_t>(codes[i]);
    case DeviceKvFormat::kInt4: {
      const int at = i % kKvGroup;
      const uint8_t byte = codes[i / kKvGroup * (kKvGroup / 2) + at % 16];
      return kInt4Levels[byte >> (at / 16 * 4) & 15];
    }
    default:
      return E4m3ToFloat(codes[i]);
  }
}

}  // namespace

void ReadDeviceKvRow(DeviceKvFormat format, ActivationType type, const void* codes,
                     const uint16_t* scales, float head_scale, int head_dim, float* x) {
  for (int i = 0; i < head_dim; ++i) {
    if (format == DeviceKvFormat::k16Bit) {
      const uint16_t bits = static_cast<const uint16_t*>(codes)[i];
      x[i] = type == ActivationType::kF16 ? HalfToFloat(bits) : Bf16ToFloat(bits);
    } else {
      const float scale = HasGroupScales(format) ? HalfToFloat(scales[i / kKvGroup]) : head_scale;
      x[i] = Code(format, static_cast<const uint8_t*>(codes), i) * scale;
    }
  }
}

}  // namespace quern::kernels::ref
