#include "kernels/cuda/common/convert.cuh"
#include "kernels/cuda/elementwise/gated_product_launch.h"

namespace quern::kernels {

constexpr int kGateThreads = 256;

// __expf errs by 2 + |1.173 x| units in the last place (CUDA programming guide), which is far below
// what the result's rounding to 16 bits takes; exp(-x) = inf gives 0, as it should.
template <Gate kGate>
__device__ __forceinline__ float Gated(float gate, float up) {
  if constexpr (kGate == Gate::kSilu) {
    return gate / (1.0f + __expf(-gate)) * up;
  } else if constexpr (kGate == Gate::kGeluTanh) {
    constexpr float kLinear = -2 * 0.79788456080286535588f;  // -2 sqrt(2 / pi)
    return gate / (1.0f + __expf(gate * __fmaf_rn(kLinear * 0.044715f * gate, gate, kLinear))) * up;
  } else {
    // Comparisons and not fminf, which would make a number of NaN.
    gate = gate > kGateLimit ? kGateLimit : gate;
    up = up > kGateLimit ? kGateLimit : up < -kGateLimit ? -kGateLimit : up;
    return gate / (1.0f + __expf(-kGateAlpha * gate)) * (up + 1.0f);
  }
}

template <typename T, Gate kGate>
__device__ __forceinline__ uint32_t GatedPair(uint32_t gate, uint32_t up) {
  const float2 g = WidenPair<T>(gate);
  const float2 u = WidenPair<T>(up);
  return NarrowPair<T>(Gated<kGate>(g.x, u.x), Gated<kGate>(g.y, u.y));
}

template <typename T, Gate kGate>
__device__ __forceinline__ uint32_t GatedTurns(uint32_t first, uint32_t second) {
  const float2 a = WidenPair<T>(first);
  const float2 b = WidenPair<T>(second);
  return NarrowPair<T>(Gated<kGate>(a.x, a.y), Gated<kGate>(b.x, b.y));
}

// A thread does 8 elements, with loads and stores of 16 bytes; where gates and ups come in turns 4,
// with one load of 16 bytes, so that a warp's loads have no gaps there, either.
template <typename T, Gate kGate, bool kTurns>
__global__ void __launch_bounds__(kGateThreads)
    GatedProductKernel(const __grid_constant__ GatedProductArgs args) {
  constexpr int kElements = kTurns ? 4 : 8;
  const uint32_t vectors = static_cast<uint32_t>(args.inner / kElements);  // of a token
  const uint32_t index = blockIdx.x * kGateThreads + threadIdx.x;
  if (index >= vectors * static_cast<uint32_t>(args.tokens)) return;
  const uint32_t token = index / vectors;
  const uint32_t column = index % vectors;
  const auto row = [token](const void* matrix, int64_t stride) {
    return static_cast<const T*>(matrix) + token * stride;
  };
  const uint4 g = reinterpret_cast<const uint4*>(row(args.gate, args.gate_stride))[column];
  T* y = static_cast<T*>(args.y) + token * args.y_stride;
  if constexpr (kTurns) {
    reinterpret_cast<uint2*>(y)[column] =
        make_uint2(GatedTurns<T, kGate>(g.x, g.y), GatedTurns<T, kGate>(g.z, g.w));
  } else {
    const uint4 u = reinterpret_cast<const uint4*>(row(args.up, args.up_stride))[column];
    reinterpret_cast<uint4*>(y)[column] =
        make_uint4(GatedPair<T, kGate>(g.x, u.x), GatedPair<T, kGate>(g.y, u.y),
                   GatedPair<T, kGate>(g.z, u.z), GatedPair<T, kGate>(g.w, u.w));
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
