#include "kernels/cuda/gguf/gguf_instances.cuh"

namespace quern::kernels {
template MatMulKernels GgufKernels<WeightType::kQ4_0>(ActivationType, bool);
}  // namespace quern::kernels
