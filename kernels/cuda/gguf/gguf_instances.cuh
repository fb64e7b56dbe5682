#pragma once

#include "kernels/cuda/common/matmul_instances.cuh"
#include "kernels/cuda/gguf/gguf_kernels.h"
#include "kernels/cuda/gguf/gguf_operand.cuh"

namespace quern::kernels {

template <WeightType kType>
MatMulKernels GgufKernels(ActivationType type) {
  return type == ActivationType::kF16
             ? MatMulInstances<GgufOperand<__half, kType>>::Kernels()
             : MatMulInstances<GgufOperand<__nv_bfloat16, kType>>::Kernels();
}

}  // namespace quern::kernels
