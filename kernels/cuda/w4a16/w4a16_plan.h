#pragma once

#include <algorithm>
#include <cstdint>

#include "quern/kernels/w4_weights.h"

// How a W4A16 product is cut into pieces: plain arithmetic, the same on the host and in the kernel.
namespace quern::kernels {

#if defined(__CUDACC__)
#define QUERN_HOST_DEVICE __host__ __device__
#else
#define QUERN_HOST_DEVICE
#endif

// Bytes of the scales that one tile of 16 x 64 weights needs.
constexpr int W4RecordBytes(W4Format format) { return format == W4Format::kQ4_1 ? 128 : 64; }

// A shape of the kernel. A thread block takes `row_warps * row_tiles * 16` rows of the weights and
// `8 * batch_tiles` rows of x; `k_warps` warps with the same rows split the columns.
struct W4Variant {
  int batch_tiles;  // of 8 rows of x
  int row_tiles;    // of 16 rows of the weights, per warp
  int row_warps;
  int k_warps;
  int col_tiles;  // of 64 columns, per warp and stage of the copy pipeline: 1 or 2
  int stages;

  constexpr int threads() const { return 32 * row_warps * k_warps; }
  constexpr int rows() const { return 16 * row_tiles * row_warps; }
  constexpr int batch() const { return 8 * batch_tiles; }
  // Bytes of shared memory: `stages` of the pipeline, and the sums of warps that split the columns.
  constexpr int stage_bytes(int record_bytes) const {
    return k_warps * col_tiles *
           (row_warps * row_tiles * (512 + record_bytes) + batch_tiles * 1024);
  }
  constexpr int shared_bytes(int record_bytes) const {
    return stages * stage_bytes(record_bytes) +
           (k_warps > 1 ? threads() * row_tiles * batch_tiles * 16 : 0);
  }
};

// The last three need less than 99 KiB of shared memory, which is what compute capabilities 8.6,
// 8.9 and 12.0 have.
inline constexpr W4Variant kW4Variants[] = {
    {1, 2, 1, 8, 2, 3}, {1, 4, 2, 4, 2, 3}, {2, 2, 4, 2, 2, 3},
    {4, 2, 4, 2, 2, 3}, {4, 2, 8, 1, 2, 3}, {8, 2, 8, 1, 2, 3},
    {1, 2, 1, 8, 2, 2}, {2, 2, 4, 2, 2, 2}, {8, 2, 8, 1, 2, 2},
};
inline constexpr int kW4VariantCount = sizeof(kW4Variants) / sizeof(kW4Variants[0]);
inline constexpr int kW4MaxBatch = 64;  // of one launch

// The variant that was fastest on an H100 for a batch of 1 to kW4MaxBatch, or where
// a thread block cannot have that much shared memory, its like with less.
constexpr int ChooseW4Variant(const W4Matrix& weights, int64_t batch, int shared_bytes) {
  constexpr int64_t kSmall = int64_t{1} << 25;  // weights: smaller ones want smaller thread blocks
  const auto fitting = [&](int best, int smaller) {
    const int record = W4RecordBytes(weights.format);
    return kW4Variants[best].shared_bytes(record) <= shared_bytes ? best : smaller;
  };
  if (batch <= 1) return fitting(0, 6);
  if (batch <= 8) return fitting(1, 6);
  if (batch <= 16) return fitting(2, 7);
  if (batch <= 32) return weights.rows * weights.cols < kSmall ? fitting(3, 4) : 4;
  return fitting(5, 8);
}

// Thread blocks for `blocks` of rows that are `units` of work. Whole blocks of rows, one to a
// thread block, where they load the multiprocessors almost evenly: then no sums cross thread
// blocks. Else as many as are resident at once (`per_sm` on each multiprocessor) share the work
// evenly.
constexpr int32_t ChooseW4ThreadBlocks(int64_t blocks, int32_t units, int64_t multiprocessors,
                                       int per_sm) {
  const int64_t waves = (blocks + multiprocessors - 1) / multiprocessors;
  if (waves <= per_sm && waves * multiprocessors * 100 <= blocks * 108) {
    return static_cast<int32_t>(blocks);
  }
  return static_cast<int32_t>(std::min<int64_t>(units, multiprocessors * per_sm));
}

// Stream-K (Osama et al. 2023): the units of work, `chunks` of columns for each block of rows, lie
// in one line that is cut into `ctas` pieces of equal length. A block of rows that falls to several
// thread blocks is summed by the last of them to finish, in their order.
struct W4Plan {
  int32_t chunks;  // units of one block of rows
  int32_t units;   // of the whole product
  int32_t ctas;    // at most `units`

  QUERN_HOST_DEVICE int32_t Begin(int32_t cta) const {
    return static_cast<int32_t>(static_cast<int64_t>(units) * cta / ctas);
  }
  // The thread block that has the unit.
  QUERN_HOST_DEVICE int32_t Owner(int32_t unit) const {
    return static_cast<int32_t>(((static_cast<int64_t>(unit) + 1) * ctas - 1) / units);
  }
};

}  // namespace quern::kernels
