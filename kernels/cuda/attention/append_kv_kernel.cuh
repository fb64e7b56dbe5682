#pragma once

#include <type_traits>

#include "kernels/cuda/attention/append_kv_launch.h"
#include "kernels/cuda/attention/head_registers.cuh"
#include "kernels/cuda/attention/kv_quantize.cuh"

// A warp for each head of each token: its head_dim values lie in the lanes' registers, side by
// side, from the load to the store, and meet in shuffles.
namespace quern::kernels {

inline constexpr int kAppendKvWarps = 4;  // of a thread block

template <typename T, int kHeadDim>
struct AppendKvHead {
  static constexpr int kOwn = kHeadDim / 32;
  using Quantizer = KvQuantizer<kOwn>;
  const AppendKvArgs& args;
  int lane;
  float x[kOwn];

  __device__ void Normalize(const float* weights) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) sum += x[i] * x[i];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    const float inverse = 1.0f / sqrtf(sum / kHeadDim + args.epsilon);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) x[i] = x[i] * inverse * weights[lane * kOwn + i];
  }

  __device__ void Angle(int32_t position, int pair, float* sine, float* cosine) const {
    // Whole turns are taken off in float64: float32 would lose what is left of many of them.
    constexpr double kTurnsPerRadian = 0.15915494309189533577;
    const double turns = position * args.frequencies[pair] * kTurnsPerRadian;
    sincospif(static_cast<float>(2.0 * (turns - rint(turns))), sine, cosine);
  }

  __device__ void Turn(int32_t position) {
    if (args.pairs == RopePairs::kAdjacent) {
#pragma unroll
      for (int i = 0; i < kOwn; i += 2) {
        if (lane * kOwn + i >= args.rope_dims) break;
        float sine;
        float cosine;
        Angle(position, (lane * kOwn + i) / 2, &sine, &cosine);
        const float a = x[i];
        const float b = x[i + 1];
        x[i] = a * cosine - b * sine;
        x[i + 1] = a * sine + b * cosine;
      }
      return;
    }
    const int half = args.rope_dims / 2;
    const int half_lanes = half / kOwn;
    const bool low = lane < half_lanes;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const float other =
          __shfl_sync(0xffffffffu, x[i], low ? lane + half_lanes : lane - half_lanes);
      if (lane >= 2 * half_lanes) continue;
      float sine;
      float cosine;
      Angle(position, lane * kOwn + i - (low ? 0 : half), &sine, &cosine);
      x[i] = low ? x[i] * cosine - other * sine : other * sine + x[i] * cosine;
    }
  }

  __device__ void StoreActivations(uint16_t* head, bool saturate) const {
    if (!saturate) {
      StoreHead<T>(x, lane, head);
      return;
    }
    float limited[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      limited[i] = x[i] > 65504.0f ? 65504.0f : x[i];
      limited[i] = limited[i] < -65504.0f ? -65504.0f : limited[i];
    }
    StoreHead<T>(limited, lane, head);
  }

  // As the cache's row `row`. All lanes of the warp come here together.
  __device__ void Append(DeviceKvFormat format, void* codes, uint16_t* scales, float head_scale,
                         int64_t row) const {
    uint32_t words[2] = {0, 0};
    uint16_t scale = 0;
    auto* bytes = static_cast<uint8_t*>(codes);
    switch (format) {
      case DeviceKvFormat::k16Bit:
        StoreActivations(static_cast<uint16_t*>(codes) + row * kHeadDim, std::is_same_v<T, __half>);
        return;
      case DeviceKvFormat::kE4m3:
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
          words[i / 4] |= Quantizer::E4m3(x[i] / head_scale) << (i % 4 * 8);
        }
        StoreBytes<kOwn>(bytes + row * kHeadDim + lane * kOwn, words);
        return;
      case DeviceKvFormat::kInt8:
        scale = Quantizer::Int8(x, words);
        StoreBytes<kOwn>(bytes + row * kHeadDim + lane * kOwn, words);
        break;
      case DeviceKvFormat::kInt4: {
        scale = Quantizer::Int4(x, words);
        constexpr int kHalf = Quantizer::kGroupLanes / 2;  // lanes: 16 elements
        const uint32_t high0 = __shfl_xor_sync(0xffffffffu, words[0], kHalf);
        const uint32_t high1 = __shfl_xor_sync(0xffffffffu, words[1], kHalf);
        words[0] |= high0 << 4;
        words[1] |= high1 << 4;
        const int group = lane / Quantizer::kGroupLanes;
        const int within = lane % Quantizer::kGroupLanes;
        if (within < kHalf) {
          StoreBytes<kOwn>(bytes + row * (kHeadDim / 2) + group * 16 + within * kOwn, words);
        }
        break;
      }
    }
    if (lane % Quantizer::kGroupLanes == 0) {
      scales[row * (kHeadDim / kKvGroup) + lane / Quantizer::kGroupLanes] = scale;
    }
  }
};

template <typename T, int kHeadDim>
__global__ void __launch_bounds__(kAppendKvWarps * 32)
    AppendKvKernel(const __grid_constant__ AppendKvArgs args) {
  const DeviceKv& kv = args.kv;
  const int heads = args.q_heads + 2 * kv.kv_heads;
  const int head_blocks = (heads + kAppendKvWarps - 1) / kAppendKvWarps;
  const int64_t token = blockIdx.x / head_blocks;
  const int head = static_cast<int>(blockIdx.x) % head_blocks * kAppendKvWarps +
                   static_cast<int>(threadIdx.x) / 32;
  if (head >= heads) return;
  const bool is_q = head < args.q_heads;
  const bool is_k = !is_q && head < args.q_heads + kv.kv_heads;
  const int64_t place = args.places[token];
  if (!is_q && (place < 0 || place >= kv.blocks * kv.block_tokens)) return;

  AppendKvHead<T, kHeadDim> values{args, static_cast<int>(threadIdx.x) % 32, {}};
  LoadHead<T>(static_cast<const uint16_t*>(args.qkv) + token * args.qkv_stride + head * kHeadDim,
              values.lane, values.x);
  const float* norm = is_q ? args.q_norm : args.k_norm;
  if ((is_q || is_k) && norm != nullptr) values.Normalize(norm);
  if ((is_q || is_k) && args.rope_dims > 0) values.Turn(args.positions[token]);
  if (args.rotate) RotateHead(values.lane, values.x);
  if (is_q) {
    values.StoreActivations(
        static_cast<uint16_t*>(args.q) + token * args.q_stride + head * kHeadDim, false);
    return;
  }
  const int kv_head = head - args.q_heads - (is_k ? 0 : kv.kv_heads);
  const int64_t row =
      (place / kv.block_tokens * kv.kv_heads + kv_head) * kv.block_tokens + place % kv.block_tokens;
  const DeviceKvFormat format =
      is_k && kv.format == DeviceKvFormat::kInt4 ? DeviceKvFormat::kInt8 : kv.format;
  const float* head_scales = is_k ? kv.k_head_scales : kv.v_head_scales;
  values.Append(format, is_k ? kv.k : kv.v, is_k ? kv.k_scales : kv.v_scales,
                head_scales == nullptr ? 1.0f : head_scales[kv_head], row);
}

template <typename T>
cudaError_t StartAppendKv(const AppendKvArgs& args, cudaStream_t stream) {
  const int heads = args.q_heads + 2 * args.kv.kv_heads;
  cudaLaunchConfig_t config{};
  config.gridDim =
      dim3(static_cast<unsigned>(args.tokens * ((heads + kAppendKvWarps - 1) / kAppendKvWarps)));
  config.blockDim = dim3(kAppendKvWarps * 32);
  config.stream = stream;
  switch (args.kv.head_dim) {
    case 64:
      return cudaLaunchKernelEx(&config, AppendKvKernel<T, 64>, args);
    case 128:
      return cudaLaunchKernelEx(&config, AppendKvKernel<T, 128>, args);
    default:
      return cudaLaunchKernelEx(&config, AppendKvKernel<T, 256>, args);
  }
}

}  // namespace quern::kernels
