#include "kernels/cpu/simd_avx512.h"
// The SIMD header decides what the rest is compiled to.
#include "kernels/cpu/kernels_impl.h"

namespace quern::kernels {

constinit const CpuKernels kAvx512Kernels = KernelsOf(CpuIsa::kAvx512, "avx512");

}  // namespace quern::kernels
