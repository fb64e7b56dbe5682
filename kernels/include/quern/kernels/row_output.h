#pragma once

#include <cstdint>

namespace quern::kernels {

// What an operation writes of a token's row.
enum class RowOutput {
  kActivation,  // y in the activations' type
  // y ~ scale * code, one scale per token: max |y| / 127 or / 448 (the types' largest values),
  // codes rounded to nearest, ties to even. Where max |y| is below 1e-30 scale and codes are 0;
  // where y holds an infinity or a NaN the scale is NaN and the codes are 0.
  kInt8,  // signed bytes, -127 to 127
  kE4m3,  // OCP 8-bit floating point E4M3 (2023); the rounding is done in software, as sm_80 has
          // none
};

// The widest row that QuantizeRows and GatedProduct quantise: it is held in the registers of one
// thread block.
inline constexpr int64_t kMaxQuantizedWidth = 32768;

}  // namespace quern::kernels
