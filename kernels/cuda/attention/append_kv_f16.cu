#include "kernels/cuda/attention/append_kv_kernel.cuh"

namespace quern::kernels {
template cudaError_t StartAppendKv<__half>(const AppendKvArgs&, cudaStream_t);
}  // namespace quern::kernels
