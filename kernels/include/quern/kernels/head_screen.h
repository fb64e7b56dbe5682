#pragma once

#include <cstdint>
#include <limits>

#include "quern/kernels/packed_matrix.h"
#include "quern/kernels/quantize_activations.h"

namespace quern::kernels {

// The k greatest of the products x . w_c over all rows w_c of a large matrix, an output head, with
// the bits that the whole product gives them, and without reading most of the matrix's lower
// halves. It is a search for maximum inner products with bounds that are refined as needed, as
// LEMP (Teflioudi et al., SIGMOD 2015) and FEXIPRO (Li et al., SIGMOD 2017) do over columns; here
// over the bits of a Q8_0 matrix in planes (packed_matrix.h), each weight of which is
// d (16 u + l - 128), l from 0 to 15.
//
// Bound. The whole product takes, group by group of 32 columns, the exact integer
//   I = sum of (16 u + l - 128) q,   then   y = fma(d, float(I) * s, y)
// with the activations q of scale s >= 0. Of l alone it is known that sum of l q <= 15 * (sum of
// the positive q) =: 15 P, so that U = sum of (16 u - 128) q + 15 P >= I. Screen does the same
// float operations in the same order with U for I. Conversion, product and fma round to nearest,
// which is monotone, and neither s nor d is negative: so what it gives is never below the whole
// product's y, its rounding included.
//
// Threshold. Of some columns, the most promising, y itself is computed. Let t be the k-th greatest
// of them: no more than the k-th greatest of all.
//
// Refinement. What has a bound below t is none of the k. Of a tile with another column, the lower
// halves are read a group at a time, those first that may take most off the bounds:
//   V = V - d s (15 P - sum of l q),
// until no bound of the tile reaches t - margin, or all groups are read; then y is computed. V is
// summed in another order than y: with b groups, e = 2^-24 and M the greatest that the sum over
// groups of d s |I|, d s |U| or d s 15 (sum of |q|) can be, y and U are off their exact values by
// at most (b + 2) e M (1 + small) each, and V's own sum by (b + 2) e 3 M (1 + small), as |V| <= 3 M
// throughout. So V >= y - margin with margin = 8 (b + 2) e M, and no column with y >= t is dropped.
//
// What is left has y; all others get kNotAmongGreatest. Every column with y >= t has its y, ties
// with the k-th included; so who ranks the k greatest by y, and by column among equals, finds the
// same ones.
inline constexpr float kNotAmongGreatest = std::numeric_limits<float>::lowest();

// A row of activations' bounds, made by BoundLowHalves; each [groups].
struct LowHalfBounds {
  int32_t* greatest;      // 15 P - 128 (sum of q): U less 16 (sum of u q)
  int32_t* low_greatest;  // 15 P
  float* half_range;      // 7.5 s (sum of |q|): half of what l can make out
};
// Row `row` of x, as it lies in its bundle.
void BoundLowHalves(const QuantizedActivations& x, int64_t row, const LowHalfBounds& bounds);

// The greatest d of each group of 32 columns over a tile's rows: greatest[g] is raised to it.
// False where one of them is negative or no finite number: then there is no screen.
bool RaiseGreatestScales(const PackedMatrix& matrix, const uint8_t* memory, int64_t tile_begin,
                         int64_t tile_end, float* greatest);

// The margin of refinement, of a row with these bounds. False where the whole product's sums might
// not be finite numbers, or are all 0: then there is no screen.
bool ScreenMargin(const LowHalfBounds& bounds, const float* greatest_scales, int64_t groups,
                  float* margin);

// An estimate that marks a tile whose columns have their y already.
inline constexpr float kTileDone = std::numeric_limits<float>::infinity();

// One row of activations. All of it stays the same between the two calls.
struct ScreenArgs {
  const PackedMatrix* weight;             // Q8_0, planes
  const QuantizedActivations* quantized;  // [rows, weight->cols]: all finite
  int64_t row;                            // of them
  LowHalfBounds bounds;
  float* y;         // [weight->rows]
  float* estimate;  // [tiles]
};

// For the tiles [tile_begin, tile_end): bounds into y, and into estimate the greatest of what the
// tile's products likely are, in the middle between the bounds. Different tiles may be done by
// different threads.
using ScreenFn = void (*)(const ScreenArgs& args, int64_t tile_begin, int64_t tile_end);

struct RefineArgs {
  ScreenArgs screen;     // after Screen
  const int32_t* order;  // [groups]: which is read first
  float threshold;       // t
  float margin;
};

// For the same tiles: y for all columns that reach the threshold, y or kNotAmongGreatest for the
// others; threshold -infinity: y for all. Tiles that are done are left alone, and others are then
// done if all their columns have y. Returns the bytes of weights that were read.
using RefineFn = int64_t (*)(const RefineArgs& args, int64_t tile_begin, int64_t tile_end);

}  // namespace quern::kernels
