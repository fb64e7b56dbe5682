#pragma once

#include <cstdint>
#include <string>

#include "quern/kernels/activation_type.h"
#include "quern/kernels/gguf_weights.h"
#include "quern/kernels/moe_permute.h"

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// The tile to sort with (MoePermuteArgs::tile) where `pairs` of token and expert go to `experts`
// experts: the smallest in which an expert's rows have a place with half as many more than the mean
// has. A tile of y reads its expert's weights once; the places of a tile that no row takes cost
// arithmetic, which a product bound by memory has to spare. Not yet tuned on a GPU.
constexpr int64_t GroupedMatMulTile(int64_t pairs, int64_t experts) {
  int64_t tile = 8;
  while (tile < 64 && 2 * tile * experts < 3 * pairs) tile *= 2;
  return tile;
}

// A product for each expert of a mixture, all in one launch, on an NVIDIA GPU of compute capability
// 8.0 or later. Row r of y, one of the sorted rows that MoePermute made, is
//
//   y[r, c] = sum over k of x[row of x, k] * w[expert of r][c, k].
//
// All pointers are to the current device's memory; what `offsets` and `row_pairs` hold is read on
// the device.
struct GroupedMatMulArgs {
  const int32_t* offsets;    // [experts + 1], MoePermute's
  const int32_t* row_pairs;  // [MoePermuteRows(pairs, experts, tile)], MoePermute's
  int64_t pairs;             // from 0 to 2^30; with none nothing is to do
  int64_t experts;           // from 1 to kMaxRoutedExperts
  int64_t tile;              // which they were sorted with: a multiple of 8, at most 1024

  ActivationType type;  // of x, and of y without float32_y
  // 16-byte aligned. With top_k > 0 a row for each token, and the sorted row of a pair multiplies
  // row pair / top_k: gates and ups. With top_k = 0 a row for each sorted row, as y has: down.
  const void* x;
  int64_t x_stride;  // elements from row to row: a multiple of 8, at least the columns
  int64_t top_k;     // 0, or a divisor of `pairs`

  // [MoePermuteRows, rows]; rounded to nearest, beyond the type's range: inf. A row that no pair
  // has (row_pairs is -1) is not written, nor is its x read: whoever reads all rows of y afterwards
  // clears it once.
  void* y;
  int64_t y_stride;  // at least the weights' rows
  // y is float32 (4-byte aligned, y_stride in elements of it): the sums, not rounded to `type`.
  bool float32_y = false;
  // The kernel may be launched before the stream's previous one has ended (compute capability 9.0),
  // and waits for it then: which weights it needs it knows only afterwards.
  bool overlap_previous = false;
  // For tests and tuning: one of kMatMulShapes (-1: the largest whose batch divides the tile), and
  // how many thread blocks share the work (0: as many as the device holds at once).
  int shape = -1;
  int thread_blocks = 0;
};

// The experts' weights [experts][rows, cols] of 16 bits, one after the other.
struct DenseExperts {
  const void* w;     // 16-byte aligned
  int64_t w_stride;  // elements from row to row: a multiple of 8, at least cols; times `rows` from
                     // expert to expert
  int64_t rows;      // from 1, below 2^29, as are cols
  int64_t cols;      // a multiple of 8
};

// Both start the products on `stream` of the current device and return "", or what is wrong;
// arguments that are wrong start nothing. They need no workspace. May be called by several threads,
// and captured into a graph (after a first call outside of one with the same types and tile, which
// loads the kernel), which goes on working when other experts are chosen.
//
// A row has the bits that Gemm or GgufMatMul gives it with its expert's weights: they depend
// neither on the batch, nor on the other experts' load, nor on timing. Each sector of an expert's
// weights is read once for each tile of y, and none of an expert without rows. Each expert's rows
// are filled up to whole blocks as in MegaBlocks (Gale et al. 2022); thread blocks take tiles of y
// in turn, and find on the device where a tile lies.
[[nodiscard]] std::string GroupedGemm(const GroupedMatMulArgs& args, const DenseExperts& weights,
                                      CUstream_st* stream);

// `one` has the type and shape of one expert's weights; its data those of all, GgufBytes(one) each.
[[nodiscard]] std::string GroupedGgufMatMul(const GroupedMatMulArgs& args, const GgufMatrix& one,
                                            CUstream_st* stream);

}  // namespace quern::kernels
