#pragma once

#include "kernels/cuda/attention/attention_kernel.cuh"

// One file per format and type instantiates StartDeviceAttention, so that they compile side by
// side.
namespace quern::kernels {

template <typename T, int kHeadDim, DeviceKvFormat kFormat, bool kDecode>
__global__ void __launch_bounds__(AttentionShape<T, kHeadDim, kFormat, kDecode>::kThreads,
                                  AttentionShape<T, kHeadDim, kFormat, kDecode>::kResident)
    PagedAttentionKernel(const __grid_constant__ DeviceAttentionLaunch launch) {
  extern __shared__ __align__(16) uint8_t shared[];
  PagedAttentionBlock<T, kHeadDim, kFormat, kDecode>(launch, shared).Run();
}

template <typename T, int kHeadDim, DeviceKvFormat kFormat, bool kDecode>
cudaError_t StartPagedAttention(const DeviceAttentionLaunch& launch, cudaStream_t stream) {
  using Shape = AttentionShape<T, kHeadDim, kFormat, kDecode>;
  const auto kernel = PagedAttentionKernel<T, kHeadDim, kFormat, kDecode>;
  const cudaError_t error =
      cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                           cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  if (error != cudaSuccess) return error;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(launch.sequences * launch.row_tiles) *
                            static_cast<unsigned>(launch.max_splits),
                        static_cast<unsigned>(launch.kv_heads));
  config.blockDim = dim3(Shape::kThreads);
  config.dynamicSmemBytes = Shape::kSharedBytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, launch);
}

template <typename T, DeviceKvFormat kFormat>
cudaError_t StartDeviceAttention(int head_dim, bool decode, const DeviceAttentionLaunch& launch,
                                 cudaStream_t stream) {
  switch (head_dim) {
    case 64:
      return decode ? StartPagedAttention<T, 64, kFormat, true>(launch, stream)
                    : StartPagedAttention<T, 64, kFormat, false>(launch, stream);
    case 128:
      return decode ? StartPagedAttention<T, 128, kFormat, true>(launch, stream)
                    : StartPagedAttention<T, 128, kFormat, false>(launch, stream);
    default:
      return decode ? StartPagedAttention<T, 256, kFormat, true>(launch, stream)
                    : StartPagedAttention<T, 256, kFormat, false>(launch, stream);
  }
}

#define QUERN_INSTANTIATE_ATTENTION(type, format)                                                  \
  template cudaError_t StartDeviceAttention<type, format>(int, bool, const DeviceAttentionLaunch&, \
                                                          cudaStream_t)

}  // namespace quern::kernels
