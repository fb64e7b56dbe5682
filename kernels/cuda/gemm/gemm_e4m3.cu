#include "kernels/cuda/common/matmul_instances.cuh"
#include "kernels/cuda/gemm/gemm_kernels.h"
#include "kernels/cuda/gemm/row_operand.cuh"

namespace quern::kernels {

// Compiled for every architecture, but W8A8MatMul starts it from compute capability 8.9 on only.
// What is compiled for less has no such mma.sync and traps (ptx::MmaE4m3): it gives no result.
MatMulKernels E4m3Kernels(ActivationType type) {
  return type == ActivationType::kF16 ? MatMulInstances<E4m3Operand<__half>>::Kernels()
                                      : MatMulInstances<E4m3Operand<__nv_bfloat16>>::Kernels();
}

}  // namespace quern::kernels
