#pragma once

#include <cstdint>

namespace quern::kernels {

// y[i] += x[i]
using AddFn = void (*)(const float* x, int64_t n, float* y);
// y[i] = cap * tanh(y[i] / cap): keeps logits within (-cap, cap) (Gemma 2, section 2).
using SoftcapFn = void (*)(float cap, int64_t n, float* y);

namespace ref {
void Add(const float* x, int64_t n, float* y);
void Softcap(float cap, int64_t n, float* y);
}  // namespace ref
}  // namespace quern::kernels
