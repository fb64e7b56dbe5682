#include "kernels/cuda/moe/moe_launch.h"

namespace quern::kernels {

constexpr int kPermuteWarps = kPermuteThreads / 32;
constexpr int kWarpPairs = kPermuteChunk / kPermuteWarps;  // side by side
constexpr int kMaxExperts = static_cast<int>(kMaxRoutedExperts);
constexpr int kExpertsPerThread = kMaxExperts / kPermuteThreads;

// A thread block's counting sort of the pairs of one chunk. Each warp has its own pairs, in order,
// and its own counts, so that nothing depends on which warp comes first.
struct alignas(8) PermuteCounts {
  int warp[kPermuteWarps][kMaxExperts];
};

__device__ __forceinline__ int ExpertOf(const MoePermuteArgs& args, int64_t pair) {
  if (pair >= args.pairs) return -1;
  const int expert = __ldg(args.expert_ids + pair);
  return expert >= 0 && expert < args.experts ? expert : -1;
}

// Calls visit(pair, expert, lanes with the same expert) for this warp's pairs of the chunk, 32 at a
// time; -1 is no expert.
template <typename Visit>
__device__ __forceinline__ void ForWarpPairs(const MoePermuteArgs& args, int64_t chunk,
                                             Visit visit) {
  const int64_t first = chunk * kPermuteChunk + threadIdx.x / 32 * kWarpPairs + threadIdx.x % 32;
  for (int i = 0; i < kWarpPairs; i += 32) {
    const int expert = ExpertOf(args, first + i);
    visit(first + i, expert, __match_any_sync(0xffffffffu, expert));
    __syncwarp();  // the counts are as the next 32 pairs find them
  }
}

__device__ void CountPairs(const MoePermuteArgs& args, int64_t chunk, PermuteCounts& counts) {
  for (int i = threadIdx.x; i < kPermuteWarps * kMaxExperts; i += kPermuteThreads) {
    counts.warp[i / kMaxExperts][i % kMaxExperts] = 0;
  }
  __syncthreads();
  int* own = counts.warp[threadIdx.x / 32];
  ForWarpPairs(args, chunk, [&](int64_t /*pair*/, int expert, unsigned same) {
    const bool first = __ffs(static_cast<int>(same)) - 1 == static_cast<int>(threadIdx.x % 32);
    if (expert >= 0 && first) own[expert] += __popc(same);
  });
  __syncthreads();
}

// Turns counts into the rows of the warps' first pairs: before(expert) and the warps before.
template <typename Before>
__device__ void PlaceWarps(int experts, PermuteCounts& counts, Before before) {
  for (int expert = threadIdx.x; expert < experts; expert += kPermuteThreads) {
    int row = before(expert);
#pragma unroll
    for (int w = 0; w < kPermuteWarps; ++w) {
      const int count = counts.warp[w][expert];
      counts.warp[w][expert] = row;
      row += count;
    }
  }
  __syncthreads();
}

__device__ void WriteRows(const MoePermuteArgs& args, int64_t chunk, PermuteCounts& counts) {
  int* own = counts.warp[threadIdx.x / 32];
  ForWarpPairs(args, chunk, [&](int64_t pair, int expert, unsigned same) {
    const unsigned before = same & ((1u << threadIdx.x % 32) - 1);
    const int first = expert >= 0 ? own[expert] : 0;
    __syncwarp();  // all have read it
    if (expert >= 0) {
      const int row = first + __popc(before);
      args.row_pairs[row] = static_cast<int32_t>(pair);
      if (before == 0) own[expert] = first + __popc(same);
    }
    if (pair < args.pairs) args.pair_rows[pair] = expert >= 0 ? first + __popc(before) : -1;
  });
}

// Offsets from the experts' counts of all pairs, and -1 to the rows that no pair takes. A thread
// has the experts kExpertsPerThread * its number and the next.
__device__ void PlaceExperts(const MoePermuteLaunch& args, const int (&totals)[kExpertsPerThread]) {
  __shared__ int warp_rows[kPermuteWarps];
  const int lane = threadIdx.x % 32;
  const int tile = static_cast<int>(args.tile);
  int padded[kExpertsPerThread];
  int own = 0;
#pragma unroll
  for (int i = 0; i < kExpertsPerThread; ++i) {
    padded[i] = (totals[i] + tile - 1) / tile * tile;
    own += padded[i];
  }
  int sum = own;  // of the lanes up to this one
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int below = __shfl_up_sync(0xffffffffu, sum, distance);
    if (lane >= distance) sum += below;
  }
  if (lane == 31) warp_rows[threadIdx.x / 32] = sum;
  __syncthreads();
  int row = sum - own;
  int end = 0;
#pragma unroll
  for (int w = 0; w < kPermuteWarps; ++w) {
    if (w < static_cast<int>(threadIdx.x / 32)) row += warp_rows[w];
    end += warp_rows[w];
  }
#pragma unroll
  for (int i = 0; i < kExpertsPerThread; ++i) {
    const int expert = static_cast<int>(threadIdx.x) * kExpertsPerThread + i;
    if (expert < args.experts) args.offsets[expert] = row;
    for (int at = row + totals[i]; at < row + padded[i]; ++at) args.row_pairs[at] = -1;
    row += padded[i];
  }
  if (threadIdx.x == 0) args.offsets[args.experts] = end;
  for (int64_t at = end + threadIdx.x; at < args.rows; at += kPermuteThreads)
    args.row_pairs[at] = -1;
}

// All of it, for one chunk.
__global__ void __launch_bounds__(kPermuteThreads)
    MoePermuteOnceKernel(const __grid_constant__ MoePermuteLaunch args) {
  __shared__ PermuteCounts counts[1];
  const int experts = static_cast<int>(args.experts);
  CountPairs(args, 0, counts[0]);
  static_assert(kExpertsPerThread == 2);
  int totals[kExpertsPerThread] = {0, 0};
#pragma unroll
  for (int w = 0; w < kPermuteWarps; ++w) {
    const int2 two = reinterpret_cast<const int2*>(counts[0].warp[w])[threadIdx.x];
    totals[0] += two.x;
    totals[1] += two.y;
  }
  PlaceExperts(args, totals);
  __syncthreads();  // the offsets are there
  PlaceWarps(experts, counts[0], [&](int expert) { return args.offsets[expert]; });
  WriteRows(args, 0, counts[0]);
}

// In three steps; the workspace holds [chunks][experts]. First each chunk's counts,
__global__ void __launch_bounds__(kPermuteThreads)
    MoePermuteCountKernel(const __grid_constant__ MoePermuteLaunch args) {
  __shared__ PermuteCounts counts[1];
  CountPairs(args, blockIdx.x, counts[0]);
  int* chunk = static_cast<int*>(args.workspace) + blockIdx.x * args.experts;
  for (int expert = threadIdx.x; expert < args.experts; expert += kPermuteThreads) {
    int sum = 0;
#pragma unroll
    for (int w = 0; w < kPermuteWarps; ++w) sum += counts[0].warp[w][expert];
    chunk[expert] = sum;
  }
}

// then, by one thread block, the sums of the chunks before, and the offsets,
__global__ void __launch_bounds__(kPermuteThreads)
    MoePermutePlaceKernel(const __grid_constant__ MoePermuteLaunch args) {
  int totals[kExpertsPerThread];
#pragma unroll
  for (int i = 0; i < kExpertsPerThread; ++i) {
    const int expert = static_cast<int>(threadIdx.x) * kExpertsPerThread + i;
    int* counts = static_cast<int*>(args.workspace) + expert;
    int sum = 0;
    if (expert < args.experts) {
#pragma unroll 8
      for (int64_t chunk = 0; chunk < args.chunks; ++chunk) {
        const int count = counts[chunk * args.experts];
        counts[chunk * args.experts] = sum;
        sum += count;
      }
    }
    totals[i] = sum;
  }
  PlaceExperts(args, totals);
}

// then the rows.
__global__ void __launch_bounds__(kPermuteThreads)
    MoePermuteWriteKernel(const __grid_constant__ MoePermuteLaunch args) {
  __shared__ PermuteCounts counts[1];
  CountPairs(args, blockIdx.x, counts[0]);
  const int* chunk = static_cast<const int*>(args.workspace) + blockIdx.x * args.experts;
  PlaceWarps(static_cast<int>(args.experts), counts[0],
             [&](int expert) { return args.offsets[expert] + chunk[expert]; });
  WriteRows(args, blockIdx.x, counts[0]);
}

cudaError_t StartMoePermute(const MoePermuteLaunch& launch, cudaStream_t stream) {
  const auto chunks = static_cast<unsigned>(launch.chunks);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1);
  config.blockDim = dim3(kPermuteThreads);
  config.stream = stream;
  if (chunks <= 1) return cudaLaunchKernelEx(&config, MoePermuteOnceKernel, launch);
  config.gridDim = dim3(chunks);
  cudaError_t error = cudaLaunchKernelEx(&config, MoePermuteCountKernel, launch);
  if (error != cudaSuccess) return error;
  config.gridDim = dim3(1);
  error = cudaLaunchKernelEx(&config, MoePermutePlaceKernel, launch);
  if (error != cudaSuccess) return error;
  config.gridDim = dim3(chunks);
  return cudaLaunchKernelEx(&config, MoePermuteWriteKernel, launch);
}

}  // namespace quern::kernels
