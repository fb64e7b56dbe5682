#pragma once

#include <cstdint>

namespace quern::kernels {

enum class Gate {
  kSilu,      // g / (1 + exp(-g)): SwiGLU (Shazeer 2020)
  kGeluTanh,  // 0.5 g (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3))): GeGLU
  // g / (1 + exp(-kGateAlpha g)) with g at most kGateLimit, times 1 + the up value, which is kept
  // within +-kGateLimit: GPT-OSS (Hugging Face transformers, modeling_gpt_oss.py, GptOssExperts).
  kSiluClamped,
};
inline constexpr float kGateAlpha = 1.702f;
inline constexpr float kGateLimit = 7;

// gate[i] = act(gate[i]) * up[i]; kSiluClamped as said there
using GatedActivationFn = void (*)(Gate kind, const float* up, int64_t n, float* gate);

namespace ref {
void GatedActivation(Gate kind, const float* up, int64_t n, float* gate);
}  // namespace ref
}  // namespace quern::kernels
