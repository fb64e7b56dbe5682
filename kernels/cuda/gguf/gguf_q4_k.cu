#include "kernels/cuda/gguf/gguf_instances.cuh"

namespace quern::kernels {
template MatMulKernels GgufKernels<WeightType::kQ4_K>(ActivationType, bool);
}  // namespace quern::kernels
