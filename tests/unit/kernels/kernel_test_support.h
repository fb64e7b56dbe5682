#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "quern/kernels/cpu_kernels.h"
#include "quern/kernels/dequantize.h"
#include "quern/kernels/numeric_types.h"
#include "quern/kernels/packed_matrix.h"

namespace quern::kernels::testing {

// The instruction sets that this machine can run; the kernels' tests run on each.
inline std::vector<CpuIsa> RunnableIsas() {
  std::vector<CpuIsa> isas;
  for (CpuIsa isa : {CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (CpuSupports(isa)) isas.push_back(isa);
  }
  return isas;
}

class IsaTest : public ::testing::TestWithParam<CpuIsa> {
 protected:
  const CpuKernels& kernels() const { return CpuKernelsFor(GetParam()); }
};

inline std::string IsaName(const ::testing::TestParamInfo<CpuIsa>& info) {
  return CpuKernelsFor(info.param).name;
}

#define QUERN_FOR_EACH_ISA(suite)                                                          \
  INSTANTIATE_TEST_SUITE_P(Isas, suite,                                                    \
                           ::testing::ValuesIn(::quern::kernels::testing::RunnableIsas()), \
                           ::quern::kernels::testing::IsaName)

inline std::vector<float> RandomFloats(std::mt19937& random, size_t n, float scale = 1) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

inline void PutHalf(uint8_t* at, float value) {
  const uint16_t half = FloatToHalf(value);
  std::memcpy(at, &half, 2);
}

// `rows` x `cols` weights in GGUF's layout: any bits, with scales that a model could have.
inline std::vector<uint8_t> RandomWeights(std::mt19937& random, WeightType type, int64_t rows,
                                          int64_t cols) {
  const WeightTypeInfo& info = *FindWeightTypeInfo(type);
  const size_t blocks = static_cast<size_t>(rows * cols / info.block_elements);
  const size_t size = static_cast<size_t>(info.block_bytes);
  std::vector<uint8_t> bytes(blocks * size);
  std::normal_distribution<float> normal(0, 0.05f);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random());
  for (size_t i = 0; i < blocks; ++i) {
    uint8_t* block = bytes.data() + i * size;
    const float value = normal(random);
    switch (type) {
      case WeightType::kF32:
        std::memcpy(block, &value, 4);
        break;
      case WeightType::kF16:
        PutHalf(block, value);
        break;
      case WeightType::kBF16:
        std::memcpy(block, reinterpret_cast<const char*>(&value) + 2, 2);
        break;
      case WeightType::kQ6_K:
        PutHalf(block + 208, value);
        break;
      case WeightType::kQ4_1:
      case WeightType::kQ5_1:
      case WeightType::kQ4_K:
      case WeightType::kQ5_K:
        PutHalf(block + 2, normal(random));
        [[fallthrough]];
      default:
        PutHalf(block, value);
    }
  }
  return bytes;
}

// A packed copy with its memory.
struct Packed {
  std::vector<uint8_t> memory;
  PackedMatrix matrix;
};

inline Packed Pack(WeightType type, int lanes, int64_t rows, int64_t cols,
                   const std::vector<uint8_t>& source) {
  Packed packed;
  packed.matrix = {type, lanes, rows, cols, nullptr};
  packed.memory.resize(static_cast<size_t>(PackedBytes(packed.matrix)));
  PackTiles(packed.matrix, source.data(), 0, packed.matrix.tiles(), packed.memory.data());
  packed.matrix.data = packed.memory.data();
  return packed;
}

// The same of Q8_0 in planes.
inline Packed PackPlanes(int lanes, int64_t rows, int64_t cols,
                         const std::vector<uint8_t>& source) {
  Packed packed;
  packed.matrix = {WeightType::kQ8_0, lanes, rows, cols, nullptr, true};
  packed.memory.resize(static_cast<size_t>(PackedBytes(packed.matrix)));
  PackTiles(packed.matrix, source.data(), 0, packed.matrix.tiles(), packed.memory.data());
  packed.matrix.data = packed.memory.data();
  return packed;
}

// Quantised activations with their memory.
struct Quantized {
  std::vector<int16_t> q;
  std::vector<float> scale, sum;
  std::vector<int32_t> neg_sum;
  QuantizedActivations view;

  Quantized(const CpuKernels& kernels, const std::vector<float>& x, int64_t rows, int64_t cols)
      : q(static_cast<size_t>(rows * cols)),
        scale(static_cast<size_t>(rows * cols / 32)),
        sum(scale.size()),
        neg_sum(scale.size()),
        view{rows, cols, q.data(), scale.data(), sum.data(), neg_sum.data()} {
    for (int64_t bundle = 0; bundle < NumBundles(rows); ++bundle) {
      kernels.quantize_activations(x.data(), cols, BundleStart(bundle, rows), 0, cols / 32, view);
    }
  }
};

// What a product of the CPU kernels may be off by. Activations: half a step of 2^-15 of their
// group's largest, against each weight. Float32 rounding: each group's terms are rounded about
// twice, and added to a sum of `groups` of them; `magnitude` bounds the terms before a minimum or
// offset cancels part of them.
inline double MatMulTolerance(WeightType type, const std::vector<uint8_t>& source, int64_t c,
                              int64_t cols, const float* x) {
  const WeightTypeInfo& info = *FindWeightTypeInfo(type);
  const int64_t row_bytes = cols / info.block_elements * info.block_bytes;
  const uint8_t* row = source.data() + c * row_bytes;
  std::vector<float> w(static_cast<size_t>(cols));
  ref::DequantizeRow(type, row, cols, w.data());
  double quantization = 0;
  double magnitude = 0;
  for (int64_t g = 0; g < (cols + 31) / 32; ++g) {
    double largest = 0;
    double weights = 0;
    double largest_weight = 0;
    double sum = 0;
    for (int64_t k = 32 * g; k < std::min(cols, 32 * g + 32); ++k) {
      const auto i = static_cast<size_t>(k);
      largest = std::max<double>(largest, std::fabs(x[k]));
      weights += std::fabs(w[i]);
      largest_weight = std::max<double>(largest_weight, std::fabs(w[i]));
      sum += std::fabs(x[k]);
    }
    if (!IsFloatType(type)) quantization += 0.51 * largest / 32767 * weights;
    // A minimum is at most the largest weight plus the span of q, itself at most twice the largest
    // weight but for groups that do not use all of q; 64 covers those too.
    magnitude += 64 * largest_weight * sum;
  }
  const double roundings = static_cast<double>(cols) / 32 + 4;
  return quantization + roundings * 0x1p-24 * magnitude + 1e-6;
}

}  // namespace quern::kernels::testing
