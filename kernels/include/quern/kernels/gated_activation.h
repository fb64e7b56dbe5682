#pragma once

#include <cstdint>

namespace quern::kernels {

enum class Gate {
  kSilu,      // g / (1 + exp(-g)): SwiGLU (Shazeer 2020)
  kGeluTanh,  // 0.5 g (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3))): GeGLU
};

// gate[i] = act(gate[i]) * up[i]
using GatedActivationFn = void (*)(Gate kind, const float* up, int64_t n, float* gate);

namespace ref {
void GatedActivation(Gate kind, const float* up, int64_t n, float* gate);
}  // namespace ref
}  // namespace quern::kernels
