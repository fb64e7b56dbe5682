#include "kernels/cpu/simd_scalar.h"
// The SIMD header decides what the rest is compiled to.
#include "kernels/cpu/kernels_impl.h"

namespace quern::kernels {

constinit const CpuKernels kScalarKernels = KernelsOf(CpuIsa::kScalar, "scalar");

}  // namespace quern::kernels
