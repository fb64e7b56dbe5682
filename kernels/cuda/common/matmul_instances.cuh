#pragma once

#include <utility>

#include "kernels/cuda/common/matmul_block.cuh"

// The kernels of one kind of weights and how they start; a .cu file for each, so that they compile
// side by side.
namespace quern::kernels {

template <typename Weights, int kShape>
__global__ void __launch_bounds__(kMatMulShapes[kShape].threads(), 1)
    MatMulKernel(const __grid_constant__ MatMulLaunch launch) {
  extern __shared__ __align__(16) uint8_t shared[];
  MatMulBlock<Weights, kShape, false>(launch, shared).Run();
}

template <typename Weights, int kShape>
__global__ void __launch_bounds__(kMatMulShapes[kShape].threads(), 1)
    GroupedMatMulKernel(const __grid_constant__ MatMulLaunch launch) {
  extern __shared__ __align__(16) uint8_t shared[];
  MatMulBlock<Weights, kShape, true>(launch, shared).Run();
}

template <typename Weights, bool kGrouped = false>
struct MatMulInstances {
  using KernelFn = void (*)(MatMulLaunch);

  // Of a grouped product's shapes; null of the others.
  template <int kShape>
  static constexpr KernelFn Instance() {
    if constexpr (!kGrouped) {
      return MatMulKernel<Weights, kShape>;
    } else if constexpr (IsGroupedMatMulShape(kShape)) {
      return GroupedMatMulKernel<Weights, kShape>;
    } else {
      return nullptr;
    }
  }

  static constexpr int SharedBytes(int shape) {
    return kMatMulShapes[shape].shared_bytes(Weights::kGroupBytes, Weights::kRecordBytes);
  }

  template <int... kShapes>
  static KernelFn KernelOf(int shape, std::integer_sequence<int, kShapes...> /*all*/) {
    static constexpr KernelFn kKernels[] = {Instance<kShapes>()...};
    return kKernels[shape];
  }
  static KernelFn KernelOf(int shape) {
    return KernelOf(shape, std::make_integer_sequence<int, kMatMulShapeCount>());
  }

  static cudaError_t BlocksPerSm(int shape, int* blocks) {
    const auto kernel = reinterpret_cast<const void*>(KernelOf(shape));
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, SharedBytes(shape));
    if (error != cudaSuccess) return error;
    return cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks, kernel, kMatMulShapes[shape].threads(), static_cast<size_t>(SharedBytes(shape)));
  }

  static cudaError_t Start(int shape, int thread_blocks, bool overlap, const MatMulLaunch& launch,
                           cudaStream_t stream) {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(thread_blocks));
    config.blockDim = dim3(static_cast<unsigned>(kMatMulShapes[shape].threads()));
    config.dynamicSmemBytes = static_cast<size_t>(SharedBytes(shape));
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = overlap ? 1 : 0;
    return cudaLaunchKernelEx(&config, KernelOf(shape), launch);
  }

  static MatMulKernels Kernels() {
    MatMulKernels kernels{{}, BlocksPerSm, Start};
    for (int i = 0; i < kMatMulShapeCount; ++i) kernels.shared_bytes[i] = SharedBytes(i);
    return kernels;
  }
};

}  // namespace quern::kernels
