#include "kernels/cuda/common/matmul_instances.cuh"
#include "kernels/cuda/gemm/gemm_kernels.h"
#include "kernels/cuda/gemm/row_operand.cuh"

namespace quern::kernels {

MatMulKernels DenseKernels(ActivationType type, bool grouped) {
  if (grouped) {
    return type == ActivationType::kF16
               ? MatMulInstances<DenseOperand<__half>, true>::Kernels()
               : MatMulInstances<DenseOperand<__nv_bfloat16>, true>::Kernels();
  }
  return type == ActivationType::kF16 ? MatMulInstances<DenseOperand<__half>>::Kernels()
                                      : MatMulInstances<DenseOperand<__nv_bfloat16>>::Kernels();
}

}  // namespace quern::kernels
