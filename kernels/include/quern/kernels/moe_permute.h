#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "quern/kernels/moe_route.h"

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// Rows that the pairs can take at most: each expert's are filled up to a multiple of `tile`.
constexpr int64_t MoePermuteRows(int64_t pairs, int64_t experts, int64_t tile) {
  return (pairs + (pairs < experts ? pairs : experts) * (tile - 1)) / tile * tile;
}

// Sorts pairs of a token and one of its experts by expert, in the order of the pairs: the rows of a
// grouped product, in which each tile of rows is one expert's. On an NVIDIA GPU of compute
// capability 8.0 or later; all pointers are to the current device's memory.
struct MoePermuteArgs {
  const int32_t* expert_ids;  // [pairs]: MoeRoute's; pair = token * top_k + slot. An id outside [0,
                              // experts) takes no row: an expert of another device's
  int64_t pairs;              // from 0 to 2^30
  int64_t experts;            // from 1 to kMaxRoutedExperts
  int64_t tile;               // from 1 to 1024; MoePermuteRows is below 2^31

  int32_t* row_pairs;  // [MoePermuteRows]: the pair of each row, -1 where there is none
  int32_t* pair_rows;  // [pairs]: the row of each pair, -1 where it has none
  int32_t* offsets;    // [experts + 1]: the first row of each expert, and the rows' end
  void* workspace;     // MoePermuteWorkspaceBytes, 16-byte aligned; it need not be cleared
  size_t workspace_size;
};

// Bytes of workspace; may be 0, and `workspace` null then.
size_t MoePermuteWorkspaceBytes(int64_t pairs, int64_t experts);

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. A counting sort: counts of each 1024 pairs, their sums, then the rows;
// one kernel does all where there are no more pairs. The result does not depend on timing. May be
// called by several threads, with a workspace each, and captured into a graph.
[[nodiscard]] std::string MoePermute(const MoePermuteArgs& args, CUstream_st* stream);

namespace ref {
// The same; `args`' pointers but workspace are to the host's memory.
void MoePermute(const MoePermuteArgs& args);
}  // namespace ref
}  // namespace quern::kernels
