#include "quern/kernels/matmul.h"

#include <cstddef>
#include <vector>

#include "quern/kernels/dequantize.h"

namespace quern::kernels::ref {

void MatMul(WeightType type, const void* source, int64_t out, int64_t in, const float* x,
            int64_t rows, float* y) {
  const WeightTypeInfo& info = *FindWeightTypeInfo(type);
  const int64_t row_bytes = in / info.block_elements * info.block_bytes;
  std::vector<float> weights(static_cast<size_t>(in));
  for (int64_t c = 0; c < out; ++c) {
    DequantizeRow(type, static_cast<const uint8_t*>(source) + c * row_bytes, in, weights.data());
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t k = 0; k < in; ++k) {
        sum += static_cast<double>(weights[static_cast<size_t>(k)]) * x[r * in + k];
      }
      y[r * out + c] = static_cast<float>(sum);
    }
  }
}

}  // namespace quern::kernels::ref
