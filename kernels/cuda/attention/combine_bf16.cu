#include "kernels/cuda/attention/combine_kernel.cuh"

namespace quern::kernels {
template cudaError_t StartCombineSplits<__nv_bfloat16>(int, const DeviceAttentionLaunch&,
                                                       cudaStream_t);
}  // namespace quern::kernels
