#pragma once

#include "quern/kernels/cpu_kernels.h"

// Defined in the file of each instruction set. Constants, so that reading them runs no code of that
// set.
namespace quern::kernels {

extern const CpuKernels kScalarKernels;
#if defined(QUERN_X86)
extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;
#endif

}  // namespace quern::kernels
