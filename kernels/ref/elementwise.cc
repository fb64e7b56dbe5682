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
    double g = gate[i];
    double u = up[i];
    // 0.5 (1 + tanh z) = 1 / (1 + exp(-2 z)), which keeps its digits where z is very negative.
    double z = g / 2;
    if (kind == Gate::kGeluTanh) z = kSqrt2OverPi * (g + 0.044715 * g * g * g);
    if (kind == Gate::kSiluClamped) {
      g = g > kGateLimit ? kGateLimit : g;  // NaN stays NaN
      z = kGateAlpha * g / 2;
      u = (u > kGateLimit ? kGateLimit : u < -kGateLimit ? -kGateLimit : u) + 1;
    }
    gate[i] = static_cast<float>(g / (1 + std::exp(-2 * z)) * u);
  }
}

}  // namespace quern::kernels::ref
