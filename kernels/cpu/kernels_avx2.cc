#include "kernels/cpu/simd_avx2.h"
// The SIMD header decides what the rest is compiled to.
#include "kernels/cpu/kernels_impl.h"

namespace quern::kernels {

constinit const CpuKernels kAvx2Kernels = KernelsOf(CpuIsa::kAvx2, "avx2");

}  // namespace quern::kernels
