#pragma once

#include "quern/kernels/dequantize.h"
#include "quern/kernels/gguf_weights.h"
#include "tests/cuda/matmul_test_support.h"

// Matrices of GGUF's types for the device tests, and what bounds the error of their products.
namespace quern::kernels::testing {

inline constexpr WeightType kGgufTypes[] = {WeightType::kQ4_0, WeightType::kQ4_1,
                                            WeightType::kQ5_0, WeightType::kQ8_0,
                                            WeightType::kQ4_K, WeightType::kQ6_K};

inline void PutHalf(uint8_t* at, float value) {
  const uint16_t half = FloatToHalf(value);
  std::memcpy(at, &half, 2);
}

// Any bits, with scales that a model could have.
inline std::vector<uint8_t> RandomGguf(std::mt19937_64& random, WeightType type, int64_t blocks) {
  const auto size = static_cast<size_t>(FindWeightTypeInfo(type)->block_bytes);
  std::vector<uint8_t> bytes(static_cast<size_t>(blocks) * size);
  std::normal_distribution<float> normal(0, 0.05f);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  for (uint8_t* block = bytes.data(); block < bytes.data() + bytes.size(); block += size) {
    PutHalf(block + (type == WeightType::kQ6_K ? 208 : 0), normal(random));
    if (type == WeightType::kQ4_1 || type == WeightType::kQ4_K) PutHalf(block + 2, normal(random));
  }
  return bytes;
}

// A matrix from GGUF's bytes, on the device.
struct GgufLayer {
  GgufMatrix matrix;
  std::vector<uint8_t> source;
  std::vector<uint8_t> packed;  // what the device's memory holds
  DeviceMemory data;

  GgufLayer(std::mt19937_64& random, WeightType type, int64_t rows, int64_t blocks)
      : matrix{type, rows, blocks * FindWeightTypeInfo(type)->block_elements, nullptr},
        source(RandomGguf(random, type, rows * blocks)),
        packed(static_cast<size_t>(GgufBytes(matrix))),
        data(packed.size()) {
    PackGgufTiles(matrix, source.data(), 0, matrix.row_tiles(), packed.data());
    QUERN_CUDA_CHECK(cudaMemcpy(data.As(), packed.data(), packed.size(), cudaMemcpyHostToDevice));
    matrix.data = data.As<uint8_t>();
  }
};

// One row of a matrix as the reference has it.
inline WeightRow ReadGgufRow(WeightType type, const uint8_t* row, int64_t cols) {
  std::vector<float> values(static_cast<size_t>(cols));
  ref::DequantizeRow(type, row, cols, values.data());
  WeightRow read{{values.begin(), values.end()}, {values.begin(), values.end()}};
  if (type != WeightType::kQ4_1 && type != WeightType::kQ4_K) return read;
  for (int64_t k = 0; k < cols; ++k) {  // the scale's term and the minimum's are summed apart
    WeightGroup group;
    ReadWeightGroups(type, row, k / 32, 1, &group);
    const bool is_k = type == WeightType::kQ4_K;
    const float minimum = std::fabs(HalfToFloat(group.m)) * (is_k ? group.mn : 1);
    read.magnitudes[static_cast<size_t>(k)] = static_cast<double>(
        minimum + std::fabs(HalfToFloat(group.d)) * (is_k ? group.sc[0] : 1) * group.q[k % 32]);
  }
  return read;
}

// A term is rounded at most 4 times in its group, then with each group of its slice (Q6_K: twice;
// with a minimum: twice), with each of four slices, and in the reference's weight and its scale.
inline double GgufAdditions(int64_t cols) {
  return 4 + 2 * (static_cast<double>(cols) / 128 + 8) + 4 + 3;
}

}  // namespace quern::kernels::testing
