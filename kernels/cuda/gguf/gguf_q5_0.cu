#include "kernels/cuda/gguf/gguf_instances.cuh"

namespace quern::kernels {
template MatMulKernels GgufKernels<WeightType::kQ5_0>(ActivationType, bool);
}  // namespace quern::kernels
