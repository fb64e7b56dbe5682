#pragma once

#include <algorithm>
#include <cstdint>

// How a product of matrices is cut up by matmul_block.cuh: plain arithmetic, the same on the host
// and in the kernel.
namespace quern::kernels {

#if defined(__CUDACC__)
#define QUERN_MATMUL_HOST_DEVICE __host__ __device__
#else
#define QUERN_MATMUL_HOST_DEVICE
#endif

inline constexpr int kMatMulTileRows = 32;    // of the weights, of one warp
inline constexpr int kMatMulGroupBytes = 64;  // of a row of x: what one step multiplies
inline constexpr int kMatMulSlices = 4;       // of the columns, summed apart and then in order

// Slice `slice` of `blocks` that must not be cut: it begins here and ends where the next one
// begins.
QUERN_MATMUL_HOST_DEVICE constexpr int32_t MatMulSliceBegin(int32_t blocks, int32_t slice) {
  return static_cast<int32_t>(int64_t{blocks} * slice / kMatMulSlices);
}

// A shape of the kernel. A thread block takes 32 `row_warps` rows of the weights and
// 8 `batch_tiles` `batch_warps` rows of x. Either `k_warps` is 4, and each of these warps has a
// slice of the columns, or it is 1, and one warp has all slices one after the other: the sums are
// the same, to the bit.
struct MatMulShape {
  int batch_tiles;  // of 8 rows of x, per warp
  int row_warps;
  int batch_warps;
  int k_warps;
  int groups;  // of columns, per stage of the copy pipeline
  int stages;

  constexpr int team() const { return row_warps * batch_warps; }  // warps that share operands
  constexpr int threads() const { return 32 * team() * k_warps; }
  constexpr int rows() const { return kMatMulTileRows * row_warps; }
  constexpr int batch() const { return 8 * batch_tiles * batch_warps; }
  constexpr int x_bytes() const { return groups * batch() * kMatMulGroupBytes; }
  // Records of eight groups that the stages of one warp may need at once.
  constexpr int records() const { return (stages - 2) / (8 / groups) + 2; }
  // Bytes of shared memory with weights of `group_bytes` per tile and group, and `record_bytes`
  // that eight groups share: two records, `stages` of the pipeline, and the sums of warps that
  // split the columns.
  constexpr int slot_bytes(int group_bytes) const {
    return x_bytes() + row_warps * groups * group_bytes;
  }
  constexpr int shared_bytes(int group_bytes, int record_bytes) const {
    return k_warps * (stages * slot_bytes(group_bytes) + records() * row_warps * record_bytes) +
           threads() * 2 * batch_tiles * 16;
  }
};

inline constexpr MatMulShape kMatMulShapes[] = {
    {1, 1, 1, 4, 2, 3}, {2, 2, 1, 4, 1, 4}, {4, 2, 1, 4, 1, 4}, {8, 2, 1, 4, 1, 3},
    {4, 4, 2, 1, 1, 4}, {8, 4, 2, 1, 1, 4}, {1, 1, 1, 4, 2, 7},
};
inline constexpr int kMatMulShapeCount = sizeof(kMatMulShapes) / sizeof(kMatMulShapes[0]);

// Those that grouped products have: the smallest for each batch, and of 64 that which fits every
// device.
constexpr bool IsGroupedMatMulShape(int shape) { return shape <= 2 || shape == 4; }

// The largest of these that fits the device and whose batch divides `tile`, a multiple of 8.
inline int ChooseGroupedMatMulShape(int64_t tile, int shared_limit,
                                    const int (&shared_bytes)[kMatMulShapeCount]) {
  int best = 0;
  for (int shape = 0; shape < kMatMulShapeCount; ++shape) {
    if (IsGroupedMatMulShape(shape) && tile % kMatMulShapes[shape].batch() == 0 &&
        shared_bytes[shape] <= shared_limit) {
      best = shape;
    }
  }
  return best;
}

constexpr int64_t MatMulTiles(const MatMulShape& shape, int64_t rows, int64_t batch) {
  return ((rows + shape.rows() - 1) / shape.rows()) * ((batch + shape.batch() - 1) / shape.batch());
}

// The shape for a product on a device with `multiprocessors` whose thread blocks can have
// `shared_limit` bytes of shared memory; `shared_bytes` are the shapes'. Shapes 0
// and 4 fit every device of compute capability 8.0 and later. Warps that split the columns make
// more thread blocks; large tiles read less, but must be enough to load every multiprocessor; a
// thread block that has a multiprocessor for itself can have more of the weights on their way.
inline int ChooseMatMulShape(int64_t rows, int64_t batch, int multiprocessors, int shared_limit,
                             const int (&shared_bytes)[kMatMulShapeCount]) {
  constexpr int kSplit = 3;  // the largest that splits the columns
  const auto fits = [&](int shape) { return shared_bytes[shape] <= shared_limit; };
  const auto loads = [&](int shape) {
    return MatMulTiles(kMatMulShapes[shape], rows, batch) >= multiprocessors;
  };
  constexpr int kDeep = 6;
  if (batch <= kMatMulShapes[kDeep].batch() && fits(kDeep) &&
      MatMulTiles(kMatMulShapes[kDeep], rows, batch) <= multiprocessors) {
    return kDeep;
  }
  if (batch > 64 && fits(kSplit + 2) && loads(kSplit + 2)) return kSplit + 2;
  if (batch > 64 && loads(kSplit + 1)) return kSplit + 1;
  int shape = 0;
  while (shape < kSplit && kMatMulShapes[shape].batch() < batch) ++shape;
  if (batch > 32 && !fits(shape)) return kSplit + 1;
  while (shape > 0 && !fits(shape)) --shape;
  return shape;
}

}  // namespace quern::kernels
