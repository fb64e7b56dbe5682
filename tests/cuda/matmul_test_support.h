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

// y [batch][rows] of a product that `start` starts, run twice into poisoned memory: a 16-bit type's
// bits, or floats.
template <typename T>
std::vector<T> RunProductTo(const std::string& text, int64_t batch, int64_t rows,
                            const std::function<std::string(void* y, int64_t y_stride)>& start) {
  const int64_t stride = rows + 2 + batch % 2;            // of pairs, or not
  const auto shift = static_cast<size_t>(batch / 2 % 2);  // and so the memory
  DeviceMemory y((static_cast<size_t>((batch + 1) * stride) + shift) * sizeof(T));
  std::vector<T> first;
  for (int run = 0; run < 2; ++run) {
    y.Fill(0xff);  // NaN
    const std::string wrong = start(y.As<T>() + shift, stride);
    Expect(wrong.empty(), text + ": " + wrong);
    QUERN_CUDA_CHECK(cudaDeviceSynchronize());
    auto now = y.Read<T>(shift, y.bytes() / sizeof(T) - shift);
    if (run == 1) Expect(SameBits(now, first), text + ": two runs differ");
    first = std::move(now);
  }
  ExpectNothingOutside(first, batch, rows, stride, text);
  std::vector<T> result;
  for (auto row = first.begin(); row < first.begin() + batch * stride; row += stride) {
    result.insert(result.end(), row, row + rows);
  }
  return result;
}

// The same to y of 16 bits and to float32, which must round to the same bits. `start` is told
// whether y is float32.
struct ProductResult {
  std::vector<uint16_t> narrow;
  std::vector<float> wide;

  // The first rows of the batch.
  ProductResult First(int64_t batch, int64_t rows) const {
    return {{narrow.begin(), narrow.begin() + batch * rows},
            {wide.begin(), wide.begin() + batch * rows}};
  }
  friend bool operator==(const ProductResult& a, const ProductResult& b) {
    return a.narrow == b.narrow && SameBits(a.wide, b.wide);
  }
};
inline ProductResult RunProduct(
    const std::string& text, ActivationType type, int64_t batch, int64_t rows,
    const std::function<std::string(void* y, int64_t y_stride, bool float32_y)>& start) {
  ProductResult result;
  result.narrow = RunProductTo<uint16_t>(
      text, batch, rows, [&](void* y, int64_t stride) { return start(y, stride, false); });
  result.wide = RunProductTo<float>(text + " float32", batch, rows, [&](void* y, int64_t stride) {
    return start(y, stride, true);
  });
  std::vector<uint16_t> rounded;
  for (float value : result.wide) {  // NaN is what nobody wrote
    rounded.push_back(std::isnan(value) ? 0xffff : Round(type, value));
  }
  Expect(rounded == result.narrow, text + ": float32 rounds to other bits");
  return result;
}

// One row of weights: its values, and what bounds the magnitude of the terms that make each of
// them.
struct WeightRow {
  std::vector<double> values;
  std::vector<double> magnitudes;
};

// |y - exact| is at most `unit` of |exact| and `least`, for what y was rounded to, and `additions`
// roundings of float32 sums, each of at most 2^-23 (tensor cores may truncate) of the magnitudes of
// all terms.
inline void CompareValues(const std::string& text, double unit, double least,
                          const std::vector<WeightRow>& weights, const std::vector<double>& x,
                          double additions, const std::vector<float>& y) {
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
      const double got = static_cast<double>(y[r * weights.size() + c]);
      const double bound = unit * std::fabs(exact) + additions * 0x1p-23 * total + least;
      const double ratio = got == exact ? 0 : std::fabs(got - exact) / bound;
      worst = std::isnan(ratio) ? INFINITY : std::max(worst, ratio);
    }
  }
  char error[60];
  std::snprintf(error, sizeof(error), ": error %.2f of the bound", worst);
  Expect(worst <= 1, text + error);
}

// y of 16 bits: half a unit of its last place (of binary16's subnormals: 2^-25).
inline void CompareProduct(const std::string& text, ActivationType type,
                           const std::vector<WeightRow>& weights, const std::vector<double>& x,
                           double additions, const std::vector<uint16_t>& y) {
  std::vector<float> values;
  for (uint16_t bits : y) values.push_back(Widen(type, bits));
  CompareValues(text, type == ActivationType::kF16 ? 0x1p-11 : 0x1p-8, 0x1p-25, weights, x,
                additions, values);
}
// And float32's sums, which are rounded no further.
inline void CompareProduct(const std::string& text, ActivationType type,
                           const std::vector<WeightRow>& weights, const std::vector<double>& x,
                           double additions, const ProductResult& y) {
  CompareProduct(text, type, weights, x, additions, y.narrow);
  CompareValues(text + " float32", 0, 0, weights, x, additions, y.wide);
}

}  // namespace quern::kernels::testing
