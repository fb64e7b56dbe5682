#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace quern::kernels::testing {

enum class WarpStep {
  kShuffleIndex,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor,
  kBallot,
  kAny,
  kAll,
  kMatchAny,
  kReduceAdd,
  kReduceMin,
  kReduceMax,
};

// One warp: out[lane] = the operation of `in[lane]` with `argument`, in segments of `width`, over
// the lanes of `mask`; other lanes leave.
cudaError_t RunWarpStep(WarpStep step, uint32_t mask, int argument, int width, const int* in,
                        int* out);
// Threads of two halves of a block pass numbers through shared memory with named barriers, `turns`
// times; out[0] is their sum.
cudaError_t ProducerConsumer(int turns, int* out);
// Each of the blocks adds its threads' numbers to a list behind a spin lock; count[0] counts them.
cudaError_t SpinLock(int* lock, int* count, int blocks, int threads);
// out[i] = how many of the block's threads have an odd number, by __syncthreads_count.
cudaError_t CountOdd(int* out, int threads);

}  // namespace quern::kernels::testing
