#include "runtime/backend/backend.h"

#include <cstdlib>

#include "quern/kernels/dequantize.h"

namespace quern {

Status Backend::Draw(const Tensor& /*x*/, const Matrix& /*head*/, float /*softcap*/,
                     std::span<const TokenDraw> /*draws*/, std::span<int32_t> /*tokens*/) {
  std::abort();  // draws() is false
}

std::vector<float> Dequantize(kernels::WeightType type, std::span<const std::byte> data,
                              int64_t size) {
  std::vector<float> values(static_cast<size_t>(size));
  kernels::ref::DequantizeRow(type, data.data(), size, values.data());
  return values;
}

}  // namespace quern
