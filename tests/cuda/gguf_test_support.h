#pragma once

#include "quern/kernels/gguf_weights.h"
#include "tests/cuda/device_support.h"

// Matrices of GGUF's types for the device tests.
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

}  // namespace quern::kernels::testing
