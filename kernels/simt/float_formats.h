#pragma once

#include <cstdint>

// The small floating-point formats of CUDA, bit for bit. Conversions and sums round to nearest,
// ties to even; NaN becomes the format's canonical one, as on the device.
namespace quern::simt {

enum class FloatFormat { kF16, kBf16, kE4m3 };

float Widen(FloatFormat format, uint32_t bits);
// E4M3 (OCP 8-bit floating point, 2023) saturates to +-448, the others overflow to infinity.
uint32_t Narrow(FloatFormat format, double value);

// a * b + c and a + b, rounded once.
uint16_t FusedMultiplyAdd(FloatFormat format, uint16_t a, uint16_t b, uint16_t c);
uint16_t Add(FloatFormat format, uint16_t a, uint16_t b);
uint16_t Multiply(FloatFormat format, uint16_t a, uint16_t b);

}  // namespace quern::simt
