#pragma once

#include <cstdint>

namespace quern::kernels {

// y[i] = x[i] / sqrt(mean(x^2) + epsilon) * weight[i] over one row of n (Zhang & Sennrich 2019). x
// may be y.
using RmsNormFn = void (*)(const float* x, const float* weight, float epsilon, int64_t n, float* y);

namespace ref {
void RmsNorm(const float* x, const float* weight, float epsilon, int64_t n, float* y);
}  // namespace ref
}  // namespace quern::kernels
