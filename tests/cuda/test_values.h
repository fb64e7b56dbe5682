#pragma once

#include "quern/kernels/cpu_kernels.h"
#include "tests/cuda/device_checks.h"

// Inputs and outputs of the device tests, and the CPU kernels to compare with.
namespace quern::kernels::testing {

// The CPU's kernels that this processor can run: their results are held to the same truth.
inline std::vector<const CpuKernels*> AllCpuKernels() {
  std::vector<const CpuKernels*> all;
  for (CpuIsa isa : {CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (CpuSupports(isa)) all.push_back(&CpuKernelsFor(isa));
  }
  return all;
}

inline std::vector<float> RandomNormal(std::mt19937_64& random, int64_t count, float deviation) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

inline std::vector<float> WidenAll(ActivationType type, const std::vector<uint16_t>& bits) {
  std::vector<float> values(bits.size());
  for (size_t i = 0; i < bits.size(); ++i) values[i] = Widen(type, bits[i]);
  return values;
}

inline std::vector<uint16_t> RoundAll(ActivationType type, const std::vector<float>& values) {
  std::vector<uint16_t> bits(values.size());
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = Round(type, values[i]);
  return bits;
}

// Rows of `cols` in memory of `stride` from row to row, and one row more; the rest is bytes 0xff,
// NaN in each format.
template <typename T>
std::vector<T> Spread(const std::vector<T>& values, int64_t cols, int64_t stride) {
  const int64_t rows = static_cast<int64_t>(values.size()) / cols;
  std::vector<T> memory(static_cast<size_t>((rows + 1) * stride));
  std::memset(memory.data(), 0xff, memory.size() * sizeof(T));
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(values.begin() + r * cols, cols, memory.begin() + r * stride);
  }
  return memory;
}

// The rows out of such memory.
template <typename T>
std::vector<T> Gathered(const std::vector<T>& memory, int64_t rows, int64_t cols, int64_t stride) {
  std::vector<T> values(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(memory.begin() + r * stride, cols, values.begin() + r * cols);
  }
  return values;
}

}  // namespace quern::kernels::testing
