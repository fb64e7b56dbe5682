#include "kernels/cuda/attention/append_kv_kernel.cuh"

namespace quern::kernels {
template cudaError_t StartAppendKv<__nv_bfloat16>(const AppendKvArgs&, cudaStream_t);
}  // namespace quern::kernels
