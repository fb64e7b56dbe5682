#pragma once

#include <bit>
#include <cstdint>
#include <limits>

// The small floating-point formats of CUDA, bit for bit. Conversions and sums round to nearest,
// ties to even; NaN becomes the format's canonical one, as on the device.
namespace quern::simt {

enum class FloatFormat { kF16, kBf16, kE4m3 };

inline float Widen(FloatFormat format, uint32_t bits) {
  switch (format) {
    case FloatFormat::kBf16:
      return std::bit_cast<float>(bits << 16);
    case FloatFormat::kF16: {
      // The exponent moved into float's field is 112 too small; subnormals come out right, too.
      const float magnitude = std::bit_cast<float>((bits & 0x7fffu) << 13) * 0x1p112f;
      const uint32_t special = (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0;
      return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | special |
                                  (bits & 0x8000u) << 16);
    }
    case FloatFormat::kE4m3: {
      if ((bits & 0x7fu) == 0x7fu) return std::numeric_limits<float>::quiet_NaN();
      const float magnitude = std::bit_cast<float>((bits & 0x7fu) << 20) * 0x1p120f;
      return (bits & 0x80u) != 0 ? -magnitude : magnitude;
    }
  }
  return 0;
}
// E4M3 (OCP 8-bit floating point, 2023) saturates to +-448, the others overflow to infinity.
uint32_t Narrow(FloatFormat format, double value);

// a * b + c and a + b, rounded once.
uint16_t FusedMultiplyAdd(FloatFormat format, uint16_t a, uint16_t b, uint16_t c);
uint16_t Add(FloatFormat format, uint16_t a, uint16_t b);
uint16_t Multiply(FloatFormat format, uint16_t a, uint16_t b);

}  // namespace quern::simt
