#pragma once

#include <cstdint>

#include "quern/kernels/packed_matrix.h"
#include "quern/kernels/quantize_activations.h"

namespace quern::kernels {

// y[r, c] = sum over k of x[r, k] * w[c, k], for the output columns c of the weight's tiles
// [tile_begin, tile_end) and all rows of x. y is row-major with `stride` floats a row; only columns
// below w.rows are written. Different tiles may be done by different threads.
struct MatMulArgs {
  const PackedMatrix* weight;             // [out, in]
  const QuantizedActivations* quantized;  // [rows, in]: for quantised weights
  const float* x;                         // [rows, in]: for float weights
  int64_t x_stride;
  int64_t rows;
  float* y;
  int64_t y_stride;
};

using MatMulFn = void (*)(const MatMulArgs& args, int64_t tile_begin, int64_t tile_end);

namespace ref {

// The oracle, on GGUF's layout: `source` holds [out, in] of `type`; y [rows, out] float32 sums in
// double.
void MatMul(WeightType type, const void* source, int64_t out, int64_t in, const float* x,
            int64_t rows, float* y);

}  // namespace ref
}  // namespace quern::kernels
