#pragma once

#include "kernels/cuda/common/matmul_block.cuh"

// Weights that lie in rows as x does, of 16 bits or of 8: they come to shared memory as they are,
// and ldmatrix makes fragments of them. A group is 64 bytes of each row.
namespace quern::kernels {

struct RowOperand {
  static constexpr int kGroupBytes = kMatMulTileRows * kMatMulGroupBytes;
  static constexpr int kBlockGroups = 1;
  static constexpr int kRecordBytes = 0;
  static constexpr int kScales = 0;
  static constexpr bool kMinimum = false;

  template <int kThreads>
  struct Source {
    RowSource<kMatMulTileRows / 8, kThreads, true> rows;

    __device__ __forceinline__ void Seek(const MatMulLaunch& launch, const uint8_t* matrix,
                                         int row_tile, int group, int thread) {
      rows.Seek(matrix, launch.weight_stride, row_tile * kMatMulTileRows, launch.rows, group,
                launch.row_bytes, thread);
    }
    template <int kGroups>
    __device__ __forceinline__ void Load(uint8_t* to, uint8_t* /*record*/, int group, int count,
                                         int thread) {
#pragma unroll
      for (int q = 0; q < kGroups; ++q) {
        if (q < count) rows.Load(to + q * kGroupBytes, q, thread);
      }
      Skip<kGroups>(group);
    }
    template <int kGroups>
    __device__ __forceinline__ void Skip(int /*group*/) {
      rows.Advance(kGroups);
    }
  };

  struct Tile {
    uint32_t a[2][2][4];

    // Registers 0 to 3: even rows, odd rows, and the same of the next 16 bytes.
    __device__ __forceinline__ void Load(const uint8_t* group, const uint8_t* /*record*/,
                                         int /*group*/, int lane) {
      const int odd = lane / 8 % 2;
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        const uint8_t* row = group + PairedRowPlace(lane % 8, odd, 2 * step + lane / 16);
        ptx::LoadMatrices(a[0][step], row);
        ptx::LoadMatrices(a[1][step], row + 1024);
      }
    }
  };
};

// binary16 or bfloat16.
template <typename T>
struct DenseOperand : RowOperand {
  using Out = T;
  using Acc = float4;

  static __device__ __forceinline__ float4 Mma(const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                               float4 c) {
    return ptx::Mma<T>(a, b0, b1, c);
  }
  static __device__ __forceinline__ float Result(const MatMulLaunch& /*launch*/, int /*row*/,
                                                 int /*col*/, float sum) {
    return sum;
  }
};

template <typename T>
struct ScaledRowOperand : RowOperand {
  using Out = T;

  template <typename Sum>
  static __device__ __forceinline__ float Result(const MatMulLaunch& launch, int row, int col,
                                                 Sum sum) {
    return static_cast<float>(sum) * launch.x_scales[row] * launch.weight_scales[col];
  }
};

template <typename T>
struct Int8Operand : ScaledRowOperand<T> {
  using Acc = int4;

  static __device__ __forceinline__ int4 Mma(const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                             int4 c) {
    return ptx::MmaS8(a, b0, b1, c);
  }
};

template <typename T>
struct E4m3Operand : ScaledRowOperand<T> {
  using Acc = float4;
  static constexpr int kScales = 1;  // of 1: a group's sum begins at zero

  struct Tile : RowOperand::Tile {
    float scale[1][2][2] = {{{1, 1}, {1, 1}}};
  };

  static __device__ __forceinline__ float4 Mma(const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                               float4 c) {
    return ptx::MmaE4m3(a, b0, b1, c);
  }
};

}  // namespace quern::kernels
