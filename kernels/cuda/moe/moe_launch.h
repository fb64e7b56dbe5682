#pragma once

#include <cuda_runtime.h>

#include "quern/kernels/moe_combine.h"
#include "quern/kernels/moe_permute.h"
#include "quern/kernels/moe_route.h"

// Start the kernels for checked arguments: at least one token, or for MoePermute any pairs.
namespace quern::kernels {

inline constexpr int kPermuteThreads = 256;
inline constexpr int kPermuteChunk = 1024;  // pairs of one thread block

constexpr int64_t PermuteChunks(int64_t pairs) {
  return (pairs + kPermuteChunk - 1) / kPermuteChunk;
}

// MoePermute's arguments and what the host has computed of them.
struct MoePermuteLaunch : MoePermuteArgs {
  int64_t rows;    // of row_pairs
  int64_t chunks;  // of pairs
};

cudaError_t StartMoeRoute(const MoeRouteArgs& args, cudaStream_t stream);
cudaError_t StartMoePermute(const MoePermuteLaunch& launch, cudaStream_t stream);
cudaError_t StartMoeCombine(const MoeCombineArgs& args, cudaStream_t stream);

}  // namespace quern::kernels
