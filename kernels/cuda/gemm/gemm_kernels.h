#pragma once

#include "kernels/cuda/common/matmul_launch.h"
#include "quern/kernels/w4a16.h"  // ActivationType

namespace quern::kernels {

// The kernels by y's type; each kind of weights has its .cu file.
MatMulKernels DenseKernels(ActivationType type, bool grouped);
MatMulKernels Int8Kernels(ActivationType type);
MatMulKernels E4m3Kernels(ActivationType type);

}  // namespace quern::kernels
