#pragma once

#include <cstdint>

#include "quern/kernels/weight_types.h"

namespace quern::kernels {

// 32 consecutive weights of one row as whole numbers, with the fields that turn them into floats:
//   Q4_0, Q5_0, Q8_0:  w = d * (q - offset)          Q4_1, Q5_1:  w = d * q + m
//   Q4_K, Q5_K:        w = d * sc[0] * q - m * mn     Q6_K:        w = d * sc[i / 16] * (q - 32)
// q is as stored (unsigned up to 6 bits, signed at 8); offset is 8, 16, 0.
struct WeightGroup {
  int8_t q[32];
  uint16_t d;     // binary16
  uint16_t m;     // binary16: the minimum, or dmin of the K types
  uint8_t sc[2];  // 6-bit unsigned (Q4_K, Q5_K: sc[0]) or signed 8-bit (Q6_K)
  uint8_t mn;     // 6-bit minimum of the K types
};

// Reads `groups` groups, starting with group `first`, of a row in GGUF's layout (ggml-quants.c,
// dequantize_row_*). Quantised types only.
void ReadWeightGroups(WeightType type, const void* row, int64_t first, int64_t groups,
                      WeightGroup* out);

namespace ref {

// The oracle: a row of `n` weights in GGUF's layout as float32. `n` is a multiple of the type's
// block.
void DequantizeRow(WeightType type, const void* row, int64_t n, float* out);

}  // namespace ref
}  // namespace quern::kernels
