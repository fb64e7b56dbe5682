#pragma once

#include "kernels/cuda/common/float16.cuh"
#include "kernels/cuda/common/matmul_launch.h"
#include "kernels/cuda/common/ptx.cuh"
#include "kernels/cuda/gguf/gguf_layout.h"

// Weights of GGUF's types as matmul_block.cuh wants them: codes become whole numbers of 16-bit
// float in registers, and scales are applied to the float32 sums.
namespace quern::kernels {

// A 16-bit float with a fixed exponent carries a small integer in its mantissa: 1024 + q in
// binary16, 128 + q in bfloat16 (Kim et al. 2022, "Who Says Elephants Can't Run", section 3). The
// difference of two such numbers is exact.
template <typename T>
inline constexpr uint32_t kCarrier = 0x64006400u;
template <>
inline constexpr uint32_t kCarrier<__nv_bfloat16> = 0x43004300u;

__device__ __forceinline__ uint32_t Subtract(uint32_t a, uint32_t b, __half /*type*/) {
  const __half2 result =
      __hsub2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const uint32_t*>(&result);
}
__device__ __forceinline__ uint32_t Subtract(uint32_t a, uint32_t b, __nv_bfloat16 /*type*/) {
  const __nv_bfloat162 result = __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&a),
                                        *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const uint32_t*>(&result);
}

// The code that stands for zero.
__host__ __device__ constexpr uint32_t GgufZero(WeightType type) {
  return type == WeightType::kQ4_0   ? 8
         : type == WeightType::kQ5_0 ? 16
         : type == WeightType::kQ6_K ? 32
                                     : 0;
}

// From the codes of 32 rows and 32 columns to fragments of mma.sync's A operand.
template <typename T, WeightType kType>
struct GgufCodes {
  static __device__ __forceinline__ void Widen(const uint8_t* codes, int lane,
                                               uint32_t (&a)[2][2][4]) {
    const uint4 words = *reinterpret_cast<const uint4*>(codes + lane * 16);
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
    uint2 high = {0, 0};
    if constexpr (kType == WeightType::kQ5_0) {
      high.x = *reinterpret_cast<const uint32_t*>(codes + 512 + lane * 4);
    } else if constexpr (kType == WeightType::kQ6_K) {
      high = *reinterpret_cast<const uint2*>(codes + 512 + lane * 8);
    }
    constexpr uint32_t kZero = kCarrier<T> + GgufZero(kType) * 0x10001u;
#pragma unroll
    for (int n = 0; n < 16; ++n) {  // row tile, step, register
      uint32_t pair = ptx::AndOr(word[n / 4] >> (4 * (n % 4)), 0x000f000fu, kCarrier<T>);
      if constexpr (kType == WeightType::kQ5_0) {
        pair = ptx::AndOr(n < 4 ? high.x << (4 - n) : high.x >> (n - 4), 0x00100010u, pair);
      } else if constexpr (kType == WeightType::kQ6_K) {
        const int at = 2 * (n % 8);
        const uint32_t bits = n < 8 ? high.x : high.y;
        pair = ptx::AndOr(at < 4 ? bits << (4 - at) : bits >> (at - 4), 0x00300030u, pair);
      }
      a[n / 8][n / 4 % 2][n % 4] = Subtract(pair, kZero, T{});
    }
  }
};

// Bytes with a sign: q = (q & 127) - (q & 128).
template <typename T>
struct GgufCodes<T, WeightType::kQ8_0> {
  static __device__ __forceinline__ void Widen(const uint8_t* codes, int lane,
                                               uint32_t (&a)[2][2][4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4 words = *reinterpret_cast<const uint4*>(codes + i * 512 + lane * 16);
      const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const uint32_t bytes = word[n / 2] >> (8 * (n % 2));
        a[i][n / 4][n % 4] = Subtract(ptx::AndOr(bytes, 0x007f007fu, kCarrier<T>),
                                      ptx::AndOr(bytes, 0x00800080u, kCarrier<T>), T{});
      }
    }
  }
};

// What one lane, of the four rows of its g, needs of a record.
__device__ __forceinline__ void LoadPairs(const uint8_t* pairs, int g, float (&values)[2][2]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float2 pair = __half22float2(reinterpret_cast<const __half2*>(pairs)[i * 8 + g]);
    values[i][0] = pair.x;
    values[i][1] = pair.y;
  }
}
__device__ __forceinline__ uint32_t LoadBytes(const uint8_t* bytes, int g) {
  return reinterpret_cast<const uint32_t*>(bytes)[g];
}
// values = factors * the four bytes of a word.
template <typename Byte>
__device__ __forceinline__ void Scale(const float (&factors)[2][2], uint32_t bytes,
                                      float (&values)[2][2]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[i / 2][i % 2] =
        factors[i / 2][i % 2] * static_cast<float>(static_cast<Byte>(bytes >> (8 * i)));
  }
}

template <typename T, WeightType kType>
struct GgufOperand {
  using Out = T;
  using Acc = float4;
  static constexpr int kBlockGroups = GgufBlockGroups(kType);
  static constexpr int kCodeBytes = GgufCodeBytes(kType);
  static constexpr int kBlockBytes = GgufBlockBytes(kType);
  static constexpr bool kApart = kBlockGroups > 1;  // records come apart from codes
  static constexpr int kGroupBytes = kApart ? kCodeBytes : kBlockBytes;
  static constexpr int kRecordBytes = kApart ? GgufRecordBytes(kType) : 0;
  static constexpr int kScales = kType == WeightType::kQ6_K ? 2 : 1;
  static constexpr bool kMinimum = kType == WeightType::kQ4_1 || kType == WeightType::kQ4_K;

  template <int kThreads>
  struct Source {
    const uint8_t* from;  // the next group's first piece of this thread
    bool valid;

    __device__ __forceinline__ void Seek(const MatMulLaunch& launch, const uint8_t* matrix,
                                         int row_tile, int group, int thread) {
      const int64_t block =
          static_cast<int64_t>(row_tile) * (launch.groups / kBlockGroups) + group / kBlockGroups;
      from = matrix + block * kBlockBytes + group % kBlockGroups * kCodeBytes + thread * 16;
      valid = row_tile * kMatMulTileRows < launch.rows;
    }

    template <int kGroups>
    __device__ __forceinline__ void Load(uint8_t* to, uint8_t* record, int group, int count,
                                         int thread) {
      Copy<kGroups * kGroupBytes / 16>(to, from, count * (kGroupBytes / 16), thread);
      if constexpr (kApart) {
        if (group % kBlockGroups == 0) {
          Copy<kRecordBytes / 16>(record, from + kBlockGroups * kCodeBytes, kRecordBytes / 16,
                                  thread);
        }
      }
      Skip<kGroups>(group);
    }
    template <int kGroups>
    __device__ __forceinline__ void Skip(int group) {
      from += kGroups * kGroupBytes;
      if (kApart && (group + kGroups) % kBlockGroups == 0) from += kRecordBytes;
    }

    // The first `pieces` of kMost, of 16 bytes.
    template <int kMost>
    __device__ __forceinline__ void Copy(uint8_t* to, const uint8_t* piece, int pieces,
                                         int thread) const {
#pragma unroll
      for (int i = 0; i < (kMost + kThreads - 1) / kThreads; ++i) {
        if (i * kThreads + thread < pieces) {
          ptx::CopyAsync16(to + (i * kThreads + thread) * 16, piece + i * kThreads * 16, valid);
        }
      }
    }
  };

  struct Tile {
    uint32_t a[2][2][4];
    float scale[kScales][2][2];
    float minimum[2][2];

    __device__ __forceinline__ void Load(const uint8_t* codes, const uint8_t* apart, int group,
                                         int lane) {
      GgufCodes<T, kType>::Widen(codes, lane, a);
      const uint8_t* record = kApart ? apart : codes + kCodeBytes;
      const int g = lane / 4;
      if constexpr (kType == WeightType::kQ4_K) {
        const uint32_t low = LoadBytes(record + 128 + 32 * group, g);
        const uint32_t high = LoadBytes(record + 384 + 32 * (group / 2), g) >> (group % 2 * 4);
        float factors[2][2];
        LoadPairs(record, g, factors);
        Scale<uint8_t>(factors, ptx::AndOr(high << 4, 0x30303030u, low & 0x0f0f0f0fu), scale[0]);
        LoadPairs(record + 64, g, factors);
        Scale<uint8_t>(factors, ptx::AndOr(high << 2, 0x30303030u, low >> 4 & 0x0f0f0f0fu),
                       minimum);
#pragma unroll
        for (int i = 0; i < 4; ++i) minimum[i / 2][i % 2] = -minimum[i / 2][i % 2];
      } else if constexpr (kType == WeightType::kQ6_K) {
        float factors[2][2];
        LoadPairs(record + 512, g, factors);
#pragma unroll
        for (int s = 0; s < kScales; ++s) {
          Scale<int8_t>(factors, LoadBytes(record + (2 * group + s) * 32, g), scale[s]);
        }
      } else {
        LoadPairs(record, g, scale[0]);
        if constexpr (kMinimum) LoadPairs(record + 64, g, minimum);
      }
    }
  };

  static __device__ __forceinline__ float4 Mma(const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                               float4 c) {
    return ptx::Mma<T>(a, b0, b1, c);
  }
  static __device__ __forceinline__ float Result(const MatMulLaunch& /*launch*/, int /*row*/,
                                                 int /*col*/, float sum) {
    return sum;
  }
};

}  // namespace quern::kernels
