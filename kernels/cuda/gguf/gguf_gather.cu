#include "kernels/cuda/common/convert.cuh"
#include "kernels/cuda/gguf/gguf_gather_launch.h"
#include "kernels/cuda/gguf/gguf_layout.h"

namespace quern::kernels {

constexpr int kGgufGatherThreads = 256;

// A row of a tile, and one lane's share of it: i, u, g and t of the layout's description.
struct LaneOfRow {
  int i, u, g, t;
  __device__ __forceinline__ LaneOfRow(int row, int t)
      : i(row / 16), u(row % 2), g(row / 2 % 8), t(t) {}
  __device__ __forceinline__ int Lane() const { return 4 * g + t; }
  __device__ __forceinline__ float Half(const uint8_t* pairs) const {
    return WidenHalf(__ldg(reinterpret_cast<const uint16_t*>(pairs) + 2 * (8 * i + g) + u));
  }
  __device__ __forceinline__ uint32_t Byte(const uint8_t* bytes) const {
    return __ldg(bytes + 4 * g + 2 * i + u);
  }
};

__device__ __forceinline__ uint32_t GatherWord(const uint8_t* from) {
  return __ldg(reinterpret_cast<const uint32_t*>(from));
}

// The lane's eight codes of a group, less the one that stands for zero: of the columns
// 16 s + 8 h + 2 t + e, in the order of n = 4 s + 2 h + e.
template <WeightType kType>
__device__ __forceinline__ void LoadRowCodes(const uint8_t* codes, const LaneOfRow& row,
                                             int (&q)[8]) {
  if constexpr (kType == WeightType::kQ8_0) {
    const uint4 words =
        __ldg(reinterpret_cast<const uint4*>(codes + 512 * row.i + 16 * row.Lane()));
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      q[n] = static_cast<int8_t>(word[n / 2] >> (8 * row.u + 16 * (n % 2)));
    }
  } else {
    constexpr int kZero = kType == WeightType::kQ4_0   ? 8
                          : kType == WeightType::kQ5_0 ? 16
                          : kType == WeightType::kQ6_K ? 32
                                                       : 0;
    const uint2 low = __ldg(reinterpret_cast<const uint2*>(codes + 16 * row.Lane() + 8 * row.i));
    uint32_t high = 0;
    if constexpr (kType == WeightType::kQ5_0) {
      high = GatherWord(codes + 512 + 4 * row.Lane()) >> (8 * row.i + row.u);
    } else if constexpr (kType == WeightType::kQ6_K) {
      high = GatherWord(codes + 512 + 8 * row.Lane() + 4 * row.i) >> (2 * row.u);
    }
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int s = n / 4;
      const int h = n / 2 % 2;
      const int e = n % 2;
      uint32_t code = (s == 0 ? low.x : low.y) >> (8 * h + 16 * e + 4 * row.u) & 15u;
      if constexpr (kType == WeightType::kQ5_0) {
        code |= (high >> (4 * s + 2 * h + 16 * e) & 1u) << 4;
      } else if constexpr (kType == WeightType::kQ6_K) {
        code |= (high >> (8 * s + 4 * h + 16 * e) & 3u) << 4;
      }
      q[n] = static_cast<int>(code) - kZero;
    }
  }
}

// What turns the codes of group `j` of a block into weights: factor[s] * code - minimum. Both are
// exact in float32, and so is their product with a code: only the difference is rounded, whether or
// not the compiler fuses it.
struct GroupScale {
  float factor[2];
  float minimum;
};

template <WeightType kType>
__device__ __forceinline__ GroupScale LoadRowScale(const uint8_t* record, const LaneOfRow& row,
                                                   int j) {
  if constexpr (kType == WeightType::kQ4_K) {
    const uint32_t low = row.Byte(record + 128 + 32 * j);
    const uint32_t high = row.Byte(record + 384 + 32 * (j / 2)) >> (j % 2 * 4);
    const auto scale = static_cast<float>((low & 15u) | (high & 3u) << 4);
    const auto minimum = static_cast<float>(low >> 4 | (high >> 2 & 3u) << 4);
    const float factor = row.Half(record) * scale;
    return {{factor, factor}, row.Half(record + 64) * minimum};
  } else if constexpr (kType == WeightType::kQ6_K) {
    const float d = row.Half(record + 512);
    const uint8_t* scales = record + 64 * j;
    return {{d * static_cast<float>(static_cast<int8_t>(row.Byte(scales))),
             d * static_cast<float>(static_cast<int8_t>(row.Byte(scales + 32)))},
            0};
  } else {
    const float d = row.Half(record);
    return {{d, d}, kType == WeightType::kQ4_1 ? -row.Half(record + 64) : 0};
  }
}

// The layout's sizes where device code can read them.
template <WeightType kType>
struct GatherSizes {
  static constexpr int kGroups = GgufBlockGroups(kType);
  static constexpr int kCodeBytes = GgufCodeBytes(kType);
  static constexpr int kBlockBytes = GgufBlockBytes(kType);
};

// Four threads for each group of 32 columns, as the four lanes of a row in a fragment: each loads 8
// or 16 bytes of codes and stores 4 pairs of floats; together the stores of four are of 32 bytes.
// The layout keeps the bytes of two rows together, and the nibbles of four: a row's codes are half
// (Q8_0) or a quarter of the sectors that are read for them.
template <WeightType kType>
__global__ void __launch_bounds__(kGgufGatherThreads)
    GgufGatherKernel(const __grid_constant__ GgufGatherArgs args) {
  const int64_t token = blockIdx.x;
  const int thread = static_cast<int>(blockIdx.y) * kGgufGatherThreads + threadIdx.x;
  const int group = thread / 4;
  if (group * 32 >= args.table.cols) return;
  const int t = thread % 4;
  const int64_t at = int64_t{args.ids[token]} - args.first;
  float2* out = reinterpret_cast<float2*>(args.out + token * args.out_stride + group * 32) +
                t;  // + 4 (n / 2)
  if (at < 0 || at >= args.table.rows) {
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) out[4 * pair] = make_float2(args.absent, args.absent);
    return;
  }
  const auto id = static_cast<int>(at);
  using Sizes = GatherSizes<kType>;
  constexpr int kGroups = Sizes::kGroups;
  const int64_t block = id / kGgufTileRows * (args.table.cols / (32 * kGroups)) + group / kGroups;
  const uint8_t* from = args.table.data + block * Sizes::kBlockBytes;
  const int j = group % kGroups;
  const LaneOfRow row(id % kGgufTileRows, t);
  int q[8];
  LoadRowCodes<kType>(from + j * Sizes::kCodeBytes, row, q);
  const GroupScale scale = LoadRowScale<kType>(from + kGroups * Sizes::kCodeBytes, row, j);
  float w[8];
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    w[n] = scale.factor[n / 4] * static_cast<float>(q[n]) - scale.minimum;
  }
#pragma unroll
  for (int pair = 0; pair < 4; ++pair) {
    out[4 * pair] = make_float2(w[2 * pair] * args.scale, w[2 * pair + 1] * args.scale);
  }
}

static auto FindGatherKernel(WeightType type) {
  switch (type) {
    case WeightType::kQ4_0:
      return GgufGatherKernel<WeightType::kQ4_0>;
    case WeightType::kQ4_1:
      return GgufGatherKernel<WeightType::kQ4_1>;
    case WeightType::kQ5_0:
      return GgufGatherKernel<WeightType::kQ5_0>;
    case WeightType::kQ4_K:
      return GgufGatherKernel<WeightType::kQ4_K>;
    case WeightType::kQ6_K:
      return GgufGatherKernel<WeightType::kQ6_K>;
    default:
      return GgufGatherKernel<WeightType::kQ8_0>;
  }
}

cudaError_t StartGgufGather(const GgufGatherArgs& args, cudaStream_t stream) {
  constexpr int64_t kCols = kGgufGatherThreads / 4 * 32;  // of a thread block
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(args.tokens),
                        static_cast<unsigned>((args.table.cols + kCols - 1) / kCols));
  config.blockDim = dim3(kGgufGatherThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, FindGatherKernel(args.table.type), args);
}

}  // namespace quern::kernels
