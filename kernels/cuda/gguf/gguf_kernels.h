#pragma once

#include "kernels/cuda/common/matmul_launch.h"
#include "quern/kernels/w4a16.h"  // ActivationType
#include "quern/kernels/weight_types.h"

namespace quern::kernels {

// The kernels of a type; each has its .cu file.
template <WeightType kType>
MatMulKernels GgufKernels(ActivationType type);

}  // namespace quern::kernels
