#pragma once

#include "kernels/cuda/common/matmul_plan.h"
#include "kernels/cuda/common/ptx.cuh"

// Rows of memory that come to shared memory a group of 64 bytes at a time, as sub-tiles of 8 rows
// of four pieces of 16 bytes, placed so that neither these copies nor ldmatrix meet in a bank.
namespace quern::kernels {

// Where piece c of row r of a sub-tile lies in it.
__device__ __forceinline__ int RowPlace(int r, int c) { return (r * 4 + (c ^ (r / 2 % 4))) * 16; }

// Of paired rows, 16 make two sub-tiles: the even ones (odd: 0), then the odd ones; r is half the
// row. Where piece c lies in the two.
__device__ __forceinline__ int PairedRowPlace(int r, int odd, int c) {
  return odd * 512 + (RowPlace(r, c) ^ (odd * 64));
}

// One thread's pieces of the next group, of kThreads: moved on, not computed anew. Rows and bytes
// beyond the matrix are zeros.
template <int kSubTiles, int kThreads, bool kPaired>
struct RowSource {
  static_assert(kSubTiles * 32 % kThreads == 0);
  static_assert(!kPaired || kThreads <= 64, "see Place");
  const uint8_t* from;
  int64_t step;
  int rows_left;
  int bytes_left;

  __device__ __forceinline__ void Seek(const uint8_t* base, int64_t stride, int first_row, int rows,
                                       int group, int row_bytes, int thread) {
    const int row = first_row + thread / 4;
    const int byte = group * kMatMulGroupBytes + thread % 4 * 16;
    from = base + row * stride + byte;
    step = kThreads / 4 * stride;
    rows_left = rows - row;
    bytes_left = row_bytes - byte;
  }
  // Group q from here on.
  __device__ __forceinline__ void Load(uint8_t* to, int q, int thread) const {
#pragma unroll
    for (int i = 0; i < kSubTiles * 32 / kThreads; ++i) {
      ptx::CopyAsync16(to + Place(i, thread), from + i * step + q * kMatMulGroupBytes,
                       i * (kThreads / 4) < rows_left && q * kMatMulGroupBytes < bytes_left);
    }
  }
  __device__ __forceinline__ void Advance(int groups) {
    from += groups * kMatMulGroupBytes;
    bytes_left -= groups * kMatMulGroupBytes;
  }

  // Of the thread's piece number i.
  __device__ __forceinline__ static int Place(int i, int thread) {
    const int row = thread / 4;
    if constexpr (!kPaired) {
      return (i * kThreads + thread / 32 * 32) * 16 + RowPlace(row % 8, thread % 4);
    } else if constexpr (kThreads == 64) {
      return i * 1024 + PairedRowPlace(row / 2, row % 2, thread % 4);
    } else {
      return i / 2 * 1024 + PairedRowPlace(i % 2 * 4 + row / 2, row % 2, thread % 4);
    }
  }
};

}  // namespace quern::kernels
