#pragma once

#include <cstdint>

namespace quern::kernels {

// Activations as 16-bit integers, x ~ scale * q with one scale per 32 columns and row (Q16): what
// the integer matmuls multiply with. 16 bits and not the usual 8, because a multiply-add of 16-bit
// pairs (vpmaddwd) costs no more than one of bytes with its sign repairs, and leaves an error of
// 2^-16 of a group's largest value: the product is as good as float32's for every purpose here.
//
// Rows are kept in bundles of 8, then 4, 2 and 1 for the rest; in a bundle of n rows starting at
// row b:
//   q        [cols / 2][n][2]  at q + b * cols: one 32-bit load is a column pair of a row
//   scale    [cols / 32][n]    at scale + b * cols / 32
//   sum      [cols / 32][n]    scale * (sum of the group's q), for weights with a minimum
//   neg_sum  [cols / 32][n]    -(sum of the group's q), for weights with an offset
struct QuantizedActivations {
  int64_t rows = 0;
  int64_t cols = 0;  // a multiple of 32
  int16_t* q = nullptr;
  float* scale = nullptr;
  float* sum = nullptr;
  int32_t* neg_sum = nullptr;
};

// Size of the bundle that starts at `row` when `rows` are held.
static inline int BundleRows(int64_t row, int64_t rows) {
  const int64_t left = rows - row;
  return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

static inline int64_t NumBundles(int64_t rows) {
  return rows / 8 + (rows >> 2 & 1) + (rows >> 1 & 1) + (rows & 1);
}

// First row of a bundle, of NumBundles(rows).
static inline int64_t BundleStart(int64_t bundle, int64_t rows) {
  int64_t start = bundle <= rows / 8 ? 8 * bundle : rows / 8 * 8;
  for (int64_t i = rows / 8; i < bundle; ++i) start += BundleRows(start, rows);
  return start;
}

// First row of the bundle that holds `row`.
static inline int64_t BundleStartOf(int64_t row, int64_t rows) {
  int64_t start = row / 8 * 8;
  while (start + BundleRows(start, rows) <= row) start += BundleRows(start, rows);
  return start;
}

// Quantises groups [group_begin, group_end) of 32 columns of the bundle that starts at row
// `bundle_start`, row r read at x + r * stride, into `out` whose members point to enough memory.
// Different bundles or groups may be done by different threads. They are what threads should share
// out, never a bundle's rows: these lie in the same cache lines.
using QuantizeActivationsFn = void (*)(const float* x, int64_t stride, int64_t bundle_start,
                                       int64_t group_begin, int64_t group_end,
                                       const QuantizedActivations& out);

}  // namespace quern::kernels
