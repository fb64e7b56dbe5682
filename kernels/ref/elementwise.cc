#include "quern/kernels/elementwise.h"

#include <cmath>

#include "quern/kernels/gated_activation.h"
#include "quern/kernels/rms_norm.h"

namespace quern::kernels::ref {

void Add(const float* x, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

void Softcap(float cap, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) {
    y[i] = static_cast<float>(cap * std::tanh(static_cast<double>(y[i]) / cap));
  }
}

void RmsNorm(const float* x, const float* weight, float epsilon, int64_t n, float* y) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  const double inverse = 1.0 / std::sqrt(sum / static_cast<double>(n) + epsilon);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(x[i] * inverse * weight[i]);
}

void GatedActivation(Gate kind, const float* up, int64_t n, float* gate) {
  constexpr double kSqrt2OverPi = 0.79788456080286535588;
  for (int64_t i = 0; i < n; ++i) {
    const double g = gate[i];
    // 0.5 (1 + tanh z) = 1 / (1 + exp(-2 z)), which keeps its digits where z is very negative.
    const double z = kind == Gate::kSilu ? g / 2 : kSqrt2OverPi * (g + 0.044715 * g * g * g);
    const double activated = g / (1 + std::exp(-2 * z));
    gate[i] = static_cast<float>(activated * up[i]);
  }
}

}  // namespace quern::kernels::ref
