#pragma once

#include <array>
#include <utility>

#include "kernels/cuda/w4a16/w4a16_kernel.cuh"

// One file per format and type instantiates these two, so that they compile side by side.
namespace quern::kernels {

// Thread blocks of a multiprocessor that registers must leave room for; 0: as nvcc likes. Left
// alone, it makes some of GGUF's smallest forms spill for the sake of blocks that shared memory has
// no room for.
template <W4Format kFormat, int kVariant>
inline constexpr int kMinBlocks =
    kFormat != W4Format::kAwq && kW4Variants[kVariant].batch_tiles == 1 ? 2 : 0;

template <typename T, W4Format kFormat, int kVariant>
__global__ void __launch_bounds__(kW4Variants[kVariant].threads(), kMinBlocks<kFormat, kVariant>)
    W4A16Kernel(const __grid_constant__ W4A16Launch launch) {
  extern __shared__ __align__(16) uint8_t shared[];
  W4A16Block<T, kFormat, kVariant>(launch, shared).Run();
}

using W4A16KernelFn = void (*)(W4A16Launch);

template <typename T, W4Format kFormat, int... kVariants>
W4A16KernelFn KernelOf(int variant, std::integer_sequence<int, kVariants...> /*all*/) {
  static constexpr W4A16KernelFn kKernels[] = {W4A16Kernel<T, kFormat, kVariants>...};
  return kKernels[variant];
}

template <typename T, W4Format kFormat>
W4A16KernelFn KernelOf(int variant) {
  return KernelOf<T, kFormat>(variant, std::make_integer_sequence<int, kW4VariantCount>());
}

template <typename T, W4Format kFormat>
cudaError_t W4A16BlocksPerSm(int variant, int* blocks) {
  const W4Variant& shape = kW4Variants[variant];
  const int bytes = shape.shared_bytes(W4RecordBytes(kFormat));
  const auto kernel = reinterpret_cast<const void*>(KernelOf<T, kFormat>(variant));
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, kernel, shape.threads(),
                                                       static_cast<size_t>(bytes));
}

template <typename T, W4Format kFormat>
cudaError_t StartW4A16(int variant, const W4A16Launch& launch, bool overlap, cudaStream_t stream) {
  const W4Variant& shape = kW4Variants[variant];
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(launch.plan.ctas));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads()));
  config.dynamicSmemBytes = static_cast<size_t>(shape.shared_bytes(W4RecordBytes(kFormat)));
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  return cudaLaunchKernelEx(&config, KernelOf<T, kFormat>(variant), launch);
}

#define QUERN_INSTANTIATE_W4A16(type, format)                     \
  template cudaError_t W4A16BlocksPerSm<type, format>(int, int*); \
  template cudaError_t StartW4A16<type, format>(int, const W4A16Launch&, bool, cudaStream_t)

}  // namespace quern::kernels
