#pragma once

#include <cmath>
#include <functional>
#include <numeric>

#include "tests/cuda/device_checks.h"

// What the tests of products share: operands, a run that finds writes outside y and bits that
// differ, and the comparison with float64 sums.
namespace quern::kernels::testing {

// [batch][cols] random numbers of a 16-bit type, in rows of `stride` with NaN where nothing may
// read.
struct Activations {
  int64_t stride;
  std::vector<uint16_t> bits;
  std::vector<double> values;  // [batch][cols]

  Activations(std::mt19937_64& random, ActivationType type, int64_t batch, int64_t cols)
      : stride((cols + 7) / 8 * 8 + 8),
        bits(static_cast<size_t>(batch * stride), 0xffff),
        values(static_cast<size_t>(batch * cols)) {
    std::normal_distribution<float> normal(0, 1);
    for (int64_t r = 0; r < batch; ++r) {
      for (int64_t k = 0; k < cols; ++k) {
        const uint16_t value = Round(type, normal(random));
        bits[static_cast<size_t>(r * stride + k)] = value;
        values[static_cast<size_t>(r * cols + k)] = static_cast<double>(Widen(type, value));
      }
    }
  }
};

// y's bits [batch][rows] of a product that `start` starts, run twice into poisoned memory.
inline std::vector<uint16_t> RunProduct(
    const std::string& text, int64_t batch, int64_t rows,
    const std::function<std::string(void* y, int64_t y_stride)>& start) {
  const int64_t stride = rows + 2 + batch % 2;  // of words, or not
  DeviceMemory y(static_cast<size_t>((batch + 1) * stride) * 2);
  std::vector<uint16_t> first;
  for (int run = 0; run < 2; ++run) {
    y.Fill(0xff);  // NaN
    const std::string wrong = start(y.As(), stride);
    Expect(wrong.empty(), text + ": " + wrong);
    QUERN_CUDA_CHECK(cudaDeviceSynchronize());
    auto now = y.Read<uint16_t>(0, y.bytes() / 2);
    if (run == 1) Expect(now == first, text + ": two runs differ");
    first = std::move(now);
  }
  std::vector<uint16_t> result;
  bool outside = true;
  for (size_t i = 0; i < first.size(); ++i) {
    const auto row = static_cast<int64_t>(i) / stride;
    const auto col = static_cast<int64_t>(i) % stride;
    if (row < batch && col < rows) {
      result.push_back(first[i]);
    } else if (first[i] != 0xffff) {
      outside = false;
    }
  }
  Expect(outside, text + ": wrote outside y");
  return result;
}

// One row of weights: its values, and what bounds the magnitude of the terms that make each of
// them.
struct WeightRow {
  std::vector<double> values;
  std::vector<double> magnitudes;
};

// |y - exact| is at most: half a unit of y's last place (of binary16's subnormals: 2^-25), and
// `additions` roundings of float32 sums, each of at most 2^-23 (tensor cores may truncate) of the
// magnitudes of all terms.
inline void CompareProduct(const std::string& text, ActivationType type,
                           const std::vector<WeightRow>& weights, const std::vector<double>& x,
                           double additions, const std::vector<uint16_t>& y) {
  const double unit = type == ActivationType::kF16 ? 0x1p-11 : 0x1p-8;
  const size_t cols = weights[0].values.size();
  const size_t batch = x.size() / cols;
  double worst = 0;
  for (size_t r = 0; r < batch; ++r) {
    for (size_t c = 0; c < weights.size(); ++c) {
      double exact = 0;
      double total = 0;
      for (size_t k = 0; k < cols; ++k) {
        exact += weights[c].values[k] * x[r * cols + k];
        total += std::fabs(weights[c].magnitudes[k] * x[r * cols + k]);
      }
      const double got = static_cast<double>(Widen(type, y[r * weights.size() + c]));
      const double bound = unit * std::fabs(exact) + additions * 0x1p-23 * total + 0x1p-25;
      const double ratio = std::fabs(got - exact) / bound;
      worst = std::isnan(ratio) ? INFINITY : std::max(worst, ratio);
    }
  }
  char error[60];
  std::snprintf(error, sizeof(error), ": error %.2f of the bound", worst);
  Expect(worst <= 1, text + error);
}

}  // namespace quern::kernels::testing
