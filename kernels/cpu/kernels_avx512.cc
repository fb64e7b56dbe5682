#include "kernels/cpu/simd_avx512.h"
// The SIMD header decides what the rest is compiled to.
#include "kernels/cpu/attention_impl.h"
#include "kernels/cpu/elementwise_impl.h"
#include "kernels/cpu/matmul_impl.h"
#include "kernels/cpu/tables.h"

namespace quern::kernels {

const CpuKernels kAvx512Kernels = {CpuIsa::kAvx512,
                                   "avx512",
                                   Simd::kLanes,
                                   QuantizeActivations,
                                   MatMul,
                                   RmsNorm,
                                   Rope,
                                   GatedActivation,
                                   Add,
                                   Softcap,
                                   Attention,
                                   AttentionSegment,
                                   CombineAttention,
                                   AppendKv,
                                   Hadamard};

}  // namespace quern::kernels
