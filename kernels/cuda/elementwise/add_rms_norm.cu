#include "kernels/cuda/common/reduce.cuh"
#include "kernels/cuda/common/row_codes.cuh"
#include "kernels/cuda/elementwise/add_rms_norm_launch.h"

namespace quern::kernels {

constexpr int kNormThreads = 1024;  // at most

__device__ __forceinline__ float4 Scaled(float4 v, float scale, float4 weight) {
  return make_float4(v.x * scale * weight.x, v.y * scale * weight.y, v.z * scale * weight.z,
                     v.w * scale * weight.w);
}

__device__ __forceinline__ float4 Sum(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

__device__ __forceinline__ float AddSquares(float sum, float4 v) {
  return __fmaf_rn(v.w, v.w, __fmaf_rn(v.z, v.z, __fmaf_rn(v.y, v.y, __fmaf_rn(v.x, v.x, sum))));
}

// One thread block per token. A thread keeps kVectors times 4 elements, those that are blockDim.x
// vectors apart, in registers, so that each byte is read and written once; loads and stores are of
// 16 bytes in float32, 8 in 16 bits, each of a warp's without gaps.
template <typename T, int kVectors, NormOutput kOutput>
__global__ void __launch_bounds__(kNormThreads)
    AddRmsNormKernel(const __grid_constant__ AddRmsNormLaunch launch) {
  __shared__ float parts[2][32];
  __shared__ uint32_t largest_parts[32];
  const AddRmsNormArgs& args = launch.args;
  const int64_t token = blockIdx.x;
  const auto inside = [&](int i) {
    return static_cast<int>(threadIdx.x + i * blockDim.x) < launch.vectors;
  };
  const auto place = [](int i) { return threadIdx.x + i * blockDim.x; };

  // The residual, and what is added to it.
  float4* residual = reinterpret_cast<float4*>(args.residual + token * args.residual_stride);
  float4 r[kVectors];
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    r[i] = inside(i) ? residual[place(i)] : make_float4(0, 0, 0, 0);
  }
  if (args.x != nullptr) {
    const uint2* x =
        reinterpret_cast<const uint2*>(static_cast<const T*>(args.x) + token * args.x_stride);
    float4 added[kVectors];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      added[i] = inside(i) ? WidenFour<T>(x[place(i)]) : make_float4(0, 0, 0, 0);
    }
    if (args.x_weight != nullptr) {
      const float4* weight = reinterpret_cast<const float4*>(args.x_weight);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kVectors; ++i) sum = AddSquares(sum, added[i]);
      sum = BlockSum(sum, parts[0]);
      const float scale = rsqrtf(sum * launch.inverse_hidden + args.epsilon);
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
        if (inside(i)) added[i] = Scaled(added[i], scale, __ldg(weight + place(i)));
      }
    }
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      r[i] = Sum(r[i], added[i]);
      if (inside(i)) residual[place(i)] = r[i];
    }
  }
  if (args.y == nullptr) return;

  // Its norm.
  const float4* weight = reinterpret_cast<const float4*>(args.weight);
  float4 w[kVectors];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    w[i] = inside(i) ? __ldg(weight + place(i)) : make_float4(0, 0, 0, 0);
    sum = AddSquares(sum, r[i]);
  }
  sum = BlockSum(sum, parts[1]);
  const float scale = rsqrtf(sum * launch.inverse_hidden + args.epsilon);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) r[i] = Scaled(r[i], scale, w[i]);

  if constexpr (kOutput == NormOutput::kActivation) {
    uint2* y = reinterpret_cast<uint2*>(static_cast<T*>(args.y) + token * args.y_stride);
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (inside(i)) y[place(i)] = NarrowFour<T>(r[i]);
    }
  } else {
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) bits = LargestBits(bits, r[i]);
    const RowCodes<kOutput> codes(BlockMax(bits, largest_parts));
    if (threadIdx.x == 0) args.y_scale[token] = codes.scale;
    uint32_t* y =
        reinterpret_cast<uint32_t*>(static_cast<uint8_t*>(args.y) + token * args.y_stride);
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (inside(i)) y[place(i)] = codes.Four(r[i]);
    }
  }
}

template <typename T, NormOutput kOutput>
cudaError_t StartNorm(const AddRmsNormLaunch& launch, cudaStream_t stream) {
  // Enough threads to have a row's loads on their way at once; few enough that several rows are.
  const int per_thread = launch.vectors <= 256 ? 1 : launch.vectors <= 1024 ? 2 : 4;
  const int threads = (launch.vectors + per_thread - 1) / per_thread;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(launch.args.tokens));
  config.blockDim = dim3(static_cast<unsigned>((threads + 31) / 32 * 32));
  config.stream = stream;
  return cudaLaunchKernelEx(&config,
                            per_thread == 1   ? AddRmsNormKernel<T, 1, kOutput>
                            : per_thread == 2 ? AddRmsNormKernel<T, 2, kOutput>
                                              : AddRmsNormKernel<T, 4, kOutput>,
                            launch);
}

template <typename T>
cudaError_t StartNorm(const AddRmsNormLaunch& launch, cudaStream_t stream) {
  switch (launch.args.output) {
    case NormOutput::kInt8:
      return StartNorm<T, NormOutput::kInt8>(launch, stream);
    case NormOutput::kE4m3:
      return StartNorm<T, NormOutput::kE4m3>(launch, stream);
    default:
      return StartNorm<T, NormOutput::kActivation>(launch, stream);
  }
}

cudaError_t StartAddRmsNorm(const AddRmsNormLaunch& launch, cudaStream_t stream) {
  return launch.args.type == ActivationType::kF16 ? StartNorm<__half>(launch, stream)
                                                  : StartNorm<__nv_bfloat16>(launch, stream);
}

}  // namespace quern::kernels
