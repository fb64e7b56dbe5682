#pragma once

#include "kernels/cuda/common/matmul_instances.cuh"
#include "kernels/cuda/gguf/gguf_kernels.h"
#include "kernels/cuda/gguf/gguf_operand.cuh"

namespace quern::kernels {

template <WeightType kType>
MatMulKernels GgufKernels(ActivationType type, bool grouped) {
  using Half = GgufOperand<__half, kType>;
  using Bfloat = GgufOperand<__nv_bfloat16, kType>;
  if (grouped) {
    return type == ActivationType::kF16 ? MatMulInstances<Half, true>::Kernels()
                                        : MatMulInstances<Bfloat, true>::Kernels();
  }
  return type == ActivationType::kF16 ? MatMulInstances<Half>::Kernels()
                                      : MatMulInstances<Bfloat>::Kernels();
}

}  // namespace quern::kernels
