#include "kernels/cuda/common/ptx.cuh"
#include "tests/unit/kernels/simt/start_kernel.h"
#include "tests/unit/kernels/simt/warp_kernels.h"

namespace quern::kernels {

using testing::WarpStep;

__global__ void WarpStepKernel(WarpStep step, uint32_t mask, int argument, int width, const int* in,
                               int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  if ((mask >> lane & 1) == 0) return;
  const int value = in[lane];
  int result = 0;
  switch (step) {
    case WarpStep::kShuffleIndex:
      result = __shfl_sync(mask, value, argument, width);
      break;
    case WarpStep::kShuffleUp:
      result = __shfl_up_sync(mask, value, argument, width);
      break;
    case WarpStep::kShuffleDown:
      result = __shfl_down_sync(mask, value, argument, width);
      break;
    case WarpStep::kShuffleXor:
      result = __shfl_xor_sync(mask, value, argument, width);
      break;
    case WarpStep::kBallot:
      result = static_cast<int>(__ballot_sync(mask, value > argument));
      break;
    case WarpStep::kAny:
      result = __any_sync(mask, value > argument);
      break;
    case WarpStep::kAll:
      result = __all_sync(mask, value > argument);
      break;
    case WarpStep::kMatchAny:
      result = static_cast<int>(__match_any_sync(mask, value));
      break;
    case WarpStep::kReduceAdd:
      result = __reduce_add_sync(mask, value);
      break;
    case WarpStep::kReduceMin:
      result = __reduce_min_sync(mask, value);
      break;
    case WarpStep::kReduceMax:
      result = __reduce_max_sync(mask, value);
      break;
  }
  out[lane] = result;
}

__global__ void ProducerConsumerKernel(int turns, int* out) {
  constexpr int kFull = 1;
  constexpr int kEmpty = 3;
  __shared__ int slots[2][32];
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (threadIdx.x < 32) {
    for (int i = 0; i < turns; ++i) {
      ptx::SyncBarrier(kEmpty + i % 2, 64);
      slots[i % 2][lane] = i * 32 + lane;
      ptx::ArriveAtBarrier(kFull + i % 2, 64);
    }
  } else {
    ptx::ArriveAtBarrier(kEmpty, 64);
    ptx::ArriveAtBarrier(kEmpty + 1, 64);
    int sum = 0;
    for (int i = 0; i < turns; ++i) {
      ptx::SyncBarrier(kFull + i % 2, 64);
      sum += slots[i % 2][31 - lane];
      if (i + 2 < turns) ptx::ArriveAtBarrier(kEmpty + i % 2, 64);
    }
    atomicAdd(out, sum);
  }
}

__global__ void SpinLockKernel(int* lock, int* count) {
  bool done = false;
  while (!done) {
    if (atomicCAS(lock, 0, 1) == 0) {
      __threadfence();
      count[0] = count[0] + 1;
      __threadfence();
      atomicExch(lock, 0);
      done = true;
    }
  }
}

__global__ void CountOddKernel(int* out) {
  out[threadIdx.x] = __syncthreads_count(static_cast<int>(threadIdx.x & 1));
}

namespace testing {

cudaError_t RunWarpStep(WarpStep step, uint32_t mask, int argument, int width, const int* in,
                        int* out) {
  return Start(WarpStepKernel, 1, 32, 0, step, mask, argument, width, in, out);
}
cudaError_t ProducerConsumer(int turns, int* out) {
  return Start(ProducerConsumerKernel, 1, 64, 0, turns, out);
}
cudaError_t SpinLock(int* lock, int* count, int blocks, int threads) {
  return Start(SpinLockKernel, blocks, threads, 0, lock, count);
}
cudaError_t CountOdd(int* out, int threads) { return Start(CountOddKernel, 1, threads, 0, out); }

}  // namespace testing
}  // namespace quern::kernels
