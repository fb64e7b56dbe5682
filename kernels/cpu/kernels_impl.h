#pragma once

// The ops over one `Simd`, which the header included before this one decides.
#include "kernels/cpu/attention_impl.h"
#include "kernels/cpu/elementwise_impl.h"
#include "kernels/cpu/head_screen_impl.h"
#include "kernels/cpu/matmul_impl.h"
#include "kernels/cpu/tables.h"

namespace quern::kernels {
namespace {

constexpr CpuKernels KernelsOf(CpuIsa isa, const char* name) {
  return {.isa = isa,
          .name = name,
          .lanes = Simd::kLanes,
          .quantize_activations = QuantizeActivations,
          .matmul = MatMul,
          .screen = Screen,
          .refine = Refine,
          .rms_norm = RmsNorm,
          .rope = Rope,
          .gated_activation = GatedActivation,
          .add = Add,
          .softcap = Softcap,
          .attention = Attention,
          .attention_segment = AttentionSegment,
          .combine_attention = CombineAttention,
          .append_kv = AppendKv,
          .hadamard = Hadamard};
}

}  // namespace
}  // namespace quern::kernels
