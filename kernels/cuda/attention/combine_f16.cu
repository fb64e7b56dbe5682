#include "kernels/cuda/attention/combine_kernel.cuh"

namespace quern::kernels {
template cudaError_t StartCombineSplits<__half>(int, const DeviceAttentionLaunch&, cudaStream_t);
}  // namespace quern::kernels
