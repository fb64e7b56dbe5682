#pragma once

#include "kernels/cuda/common/matmul_launch.h"
#include "kernels/cuda/common/row_source.cuh"

// What a grouped product has of its own: the place of a tile of y, which depends on what the device
// alone knows, and rows of x that may lie anywhere.
namespace quern::kernels {

// Where a tile of y lies.
struct MatMulPlace {
  int expert;
  int row_tile;  // of the expert's weights
  int row;       // the first one of y
};

// How many tiles of kBatch rows lie before an expert's; expert `experts`: all of them.
template <int kBatch>
__device__ __forceinline__ int GroupTilesBefore(const MatMulLaunch& launch, int expert) {
  return launch.offsets[expert] / kBatch * launch.row_tiles;
}

// All lanes of a warp look for the same tile, one of those that there are: its expert's number is
// that of the experts, from 1 on, before which lie no more tiles than `tile`. 32 of them are looked
// at, then those between two of these.
template <int kBatch>
__device__ __forceinline__ MatMulPlace FindGroupTile(const MatMulLaunch& launch, int tile,
                                                     int lane) {
  const int step = (launch.experts + 31) / 32;
  const auto begins_by = [&](int expert) {
    return expert <= launch.experts && GroupTilesBefore<kBatch>(launch, expert) <= tile;
  };
  int expert = __popc(__ballot_sync(0xffffffffu, begins_by((lane + 1) * step))) * step;
  if (step > 1) {
    const bool begins = lane < step - 1 && begins_by(expert + 1 + lane);
    expert += __popc(__ballot_sync(0xffffffffu, begins));
  }
  const int first = launch.offsets[expert];
  const int batch_tiles = (launch.offsets[expert + 1] - first) / kBatch;
  const int own = tile - first / kBatch * launch.row_tiles;
  return {expert, own / batch_tiles, first + own % batch_tiles * kBatch};
}

// RowSource's work for the rows of x that a tile's sorted rows need; zeros for a row without a
// pair.
template <int kSubTiles, int kThreads>
struct GatheredRows {
  static constexpr int kPieces = kSubTiles * 32 / kThreads;
  const uint8_t* from[kPieces];
  int bytes_left[kPieces];

  __device__ __forceinline__ void Seek(const MatMulLaunch& launch, int first_row, int group,
                                       int thread) {
    const int byte = group * kMatMulGroupBytes + thread % 4 * 16;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int row = first_row + i * (kThreads / 4) + thread / 4;
      const int pair = launch.row_pairs[row];
      const int64_t x_row = pair < 0 ? 0 : launch.top_k == 0 ? row : pair / launch.top_k;
      from[i] = launch.x + x_row * launch.x_stride + byte;
      bytes_left[i] = pair < 0 ? 0 : launch.row_bytes - byte;
    }
  }
  __device__ __forceinline__ void Load(uint8_t* to, int q, int thread) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      ptx::CopyAsync16(to + RowSource<kSubTiles, kThreads, false>::Place(i, thread),
                       from[i] + q * kMatMulGroupBytes, q * kMatMulGroupBytes < bytes_left[i]);
    }
  }
  __device__ __forceinline__ void Advance(int groups) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      from[i] += groups * kMatMulGroupBytes;
      bytes_left[i] -= groups * kMatMulGroupBytes;
    }
  }
};

}  // namespace quern::kernels
