#include "kernels/cpu/simd_avx2.h"
// The SIMD header decides what the rest is compiled to.
#include "kernels/cpu/attention_impl.h"
#include "kernels/cpu/elementwise_impl.h"
#include "kernels/cpu/matmul_impl.h"
#include "kernels/cpu/tables.h"

namespace quern::kernels {

const CpuKernels kAvx2Kernels = {CpuIsa::kAvx2,
                                 "avx2",
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
