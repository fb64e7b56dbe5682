#include "kernels/cuda/common/matmul_instances.cuh"
#include "kernels/cuda/gemm/gemm_kernels.h"
#include "kernels/cuda/gemm/row_operand.cuh"

namespace quern::kernels {

MatMulKernels Int8Kernels(ActivationType type) {
  return type == ActivationType::kF16 ? MatMulInstances<Int8Operand<__half>>::Kernels()
                                      : MatMulInstances<Int8Operand<__nv_bfloat16>>::Kernels();
}

}  // namespace quern::kernels
