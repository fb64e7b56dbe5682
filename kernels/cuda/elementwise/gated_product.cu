#include "kernels/cuda/elementwise/gated_product_launch.h"
#include "kernels/cuda/elementwise/gates.cuh"

namespace quern::kernels {

constexpr int kGateThreads = 256;

// A thread does one vector of GateRows.
template <typename T, Gate kGate, bool kTurns>
__global__ void __launch_bounds__(kGateThreads)
    GatedProductKernel(const __grid_constant__ GatedProductArgs args) {
  using Rows = GateRows<T, kGate, kTurns>;
  const uint32_t vectors = static_cast<uint32_t>(args.inner / Rows::kElements);  // of a token
  const uint32_t index = blockIdx.x * kGateThreads + threadIdx.x;
  if (index >= vectors * static_cast<uint32_t>(args.tokens)) return;
  const uint32_t token = index / vectors;
  const uint32_t column = index % vectors;
  const Rows rows{static_cast<const T*>(args.gate), args.gate_stride,
                  static_cast<const T*>(args.up), args.up_stride};
  float4 v[Rows::kElements / 4];
  rows.Load(token, static_cast<int>(column), v);
  T* y = static_cast<T*>(args.y) + token * args.y_stride;
  const uint2 low = NarrowFour<T>(v[0]);
  if constexpr (kTurns) {
    reinterpret_cast<uint2*>(y)[column] = low;
  } else {
    const uint2 high = NarrowFour<T>(v[1]);
    reinterpret_cast<uint4*>(y)[column] = make_uint4(low.x, low.y, high.x, high.y);
  }
}

template <typename T, Gate kGate>
cudaError_t StartProduct(const GatedProductArgs& args, cudaStream_t stream) {
  const bool turns = args.up == nullptr;
  const int64_t vectors = args.tokens * (args.inner / (turns ? 4 : 8));
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>((vectors + kGateThreads - 1) / kGateThreads));
  config.blockDim = dim3(kGateThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(
      &config, turns ? GatedProductKernel<T, kGate, true> : GatedProductKernel<T, kGate, false>,
      args);
}

template <typename T>
cudaError_t StartProduct(const GatedProductArgs& args, cudaStream_t stream) {
  switch (args.gate_kind) {
    case Gate::kGeluTanh:
      return StartProduct<T, Gate::kGeluTanh>(args, stream);
    case Gate::kSiluClamped:
      return StartProduct<T, Gate::kSiluClamped>(args, stream);
    default:
      return StartProduct<T, Gate::kSilu>(args, stream);
  }
}

cudaError_t StartGatedProduct(const GatedProductArgs& args, cudaStream_t stream) {
  return args.type == ActivationType::kF16 ? StartProduct<__half>(args, stream)
                                           : StartProduct<__nv_bfloat16>(args, stream);
}

}  // namespace quern::kernels
