#pragma once

#include "kernels/cuda/common/matmul_launch.h"
#include "quern/kernels/w4a16.h"  // ActivationType
#include "quern/kernels/weight_types.h"

namespace quern::kernels {

// The kernels of a type, of a product or a grouped one; each has its .cu file.
template <WeightType kType>
MatMulKernels GgufKernels(ActivationType type, bool grouped);

// The same of a type of those that have a layout.
MatMulKernels FindGgufKernels(WeightType weights, ActivationType type, bool grouped);

}  // namespace quern::kernels
