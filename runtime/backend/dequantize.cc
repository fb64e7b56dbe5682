#include "quern/kernels/dequantize.h"

#include "runtime/backend/backend.h"

namespace quern {

std::vector<float> Dequantize(kernels::WeightType type, std::span<const std::byte> data,
                              int64_t size) {
  std::vector<float> values(static_cast<size_t>(size));
  kernels::ref::DequantizeRow(type, data.data(), size, values.data());
  return values;
}

}  // namespace quern
