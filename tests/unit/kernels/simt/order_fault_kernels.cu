#include "kernels/cuda/common/ptx.cuh"
#include "tests/unit/kernels/simt/fault_kernels.h"
#include "tests/unit/kernels/simt/start_kernel.h"

// The lines marked "fault" are where the emulator must say that the fault is.
namespace quern::kernels {

template <bool kFaulty>
__global__ void ReadBeforeBarrier(int* memory) {
  __shared__ int tile[64];
  tile[threadIdx.x] = 0;
  __syncthreads();
  tile[threadIdx.x] = 1;  // fault
  if (!kFaulty) __syncthreads();
  memory[threadIdx.x] = tile[threadIdx.x % 32 * 2 + threadIdx.x / 32];  // fault
}

template <bool kFaulty>
__global__ void OverwriteBeforeBarrier(int* memory) {
  extern __shared__ int shared[];
  shared[threadIdx.x] = 1;
  __syncthreads();
  const int other = shared[(threadIdx.x + 32) % 64];  // fault
  if (!kFaulty) __syncthreads();
  shared[threadIdx.x] = other + 1;  // fault
  memory[threadIdx.x] = other;
}

// All read one word; the first thread writes it again when it knows that all others have, or all
// but the last warp.
template <bool kFaulty>
__global__ void OneReaderNotWaitedFor(int* memory) {
  extern __shared__ int shared[];
  if (threadIdx.x == 0) shared[0] = 1;
  __syncthreads();
  memory[threadIdx.x] = shared[0];  // fault
  if (kFaulty && threadIdx.x >= 96) return;
  const int threads = kFaulty ? 96 : 128;
  if (threadIdx.x >= 32) {
    ptx::ArriveAtBarrier(1, threads);
  } else {
    ptx::SyncBarrier(1, threads);
    if (threadIdx.x == 0) shared[0] = 2;  // fault
  }
}

// Lanes of a warp do not run in step, and a shuffle orders no memory.
template <bool kFaulty>
__global__ void WithinAWarp(int* memory) {
  __shared__ int tile[32];
  tile[threadIdx.x] = 0;
  __syncwarp();
  tile[threadIdx.x] = 1;  // fault
  if (kFaulty) {
    __shfl_sync(0xffffffffu, 1, 0);
  } else {
    __syncwarp();
  }
  memory[threadIdx.x] = tile[31 - threadIdx.x];  // fault
}

template <bool kFaulty>
__global__ void BytesOfOneWord(int* memory) {
  auto* bytes = reinterpret_cast<uint8_t*>(memory);
  bytes[threadIdx.x / (kFaulty ? 2 : 1)] = 1;  // fault
}

template <bool kFaulty>
__global__ void GlobalWithinABlock(int* memory) {
  memory[threadIdx.x] = 1;  // fault
  if (!kFaulty) __syncthreads();
  memory[64 + threadIdx.x] = memory[63 - threadIdx.x];  // fault
}

template <bool kFaulty>
__global__ void GlobalAcrossBlocks(int* memory) {
  const unsigned at = kFaulty ? threadIdx.x : blockIdx.x * 32 + threadIdx.x;
  __stcg(memory + at, 1);  // fault
}

// The last block to arrive reads what the others wrote: right with a fence before and after the
// atomic operation.
template <bool kFaulty>
__global__ void LastBlockWithoutFence(int* memory) {
  __shared__ int last;
  memory[64 + blockIdx.x * 32 + threadIdx.x] = 1;  // fault
  __syncthreads();
  if (threadIdx.x == 0) {
    if (!kFaulty) __threadfence();
    last = atomicAdd(memory, 1) == 3;
    if (last != 0) memory[0] = 0;  // after the others' atomics, which it has seen
    __threadfence();
  }
  __syncthreads();
  if (last == 0) return;
  int sum = 0;
  for (unsigned b = 0; b < 4; ++b) sum += memory[64 + b * 32 + threadIdx.x];  // fault
  memory[512 + threadIdx.x] = sum;
}

// A flag that another block waits for gives it what was written before, with fences on both sides.
template <bool kFaulty>
__global__ void FlagWithoutFence(int* memory) {
  volatile int* flag = memory;
  if (blockIdx.x == 0) {
    memory[1] = 5;  // fault
    __threadfence();
    *flag = 1;
  } else {
    while (*flag == 0) {
    }
    if (!kFaulty) __threadfence();
    memory[2] = memory[1];  // fault
  }
}

// A lock gives what it guards to the next one only with fences.
template <bool kFaulty>
__global__ void LockWithoutFence(int* memory) {
  bool done = false;
  while (!done) {
    if (atomicCAS(memory, 0, 1) == 0) {
      __threadfence();
      memory[1] = memory[1] + 1;  // fault
      if (!kFaulty) __threadfence();
      atomicExch(memory, 0);
      done = true;
    }
  }
}

template <bool kFaulty>
__global__ void PlainAndAtomic(int* memory) {
  if (kFaulty) {
    if (threadIdx.x == 5) {
      memory[0] = 7;  // fault
    } else {
      atomicAdd(memory, 1);  // fault
    }
  } else {
    atomicAdd(memory, 1);
  }
}

template <bool kFaulty>
__global__ void CopyWithoutBarrier(int* memory) {
  extern __shared__ int shared[];
  for (int i = 0; i < 4; ++i) shared[4 * threadIdx.x + i] = 0;
  __syncthreads();
  ptx::CopyAsync16(shared + 4 * threadIdx.x, memory + 4 * threadIdx.x, true);  // fault
  ptx::CommitCopies();
  ptx::WaitForCopies<0>();
  if (!kFaulty) __syncthreads();
  memory[512 + threadIdx.x] = shared[4 * (63 - threadIdx.x)];  // fault
}

// A stage of a pipeline that is filled again while others may still read it.
template <bool kFaulty>
__global__ void CopyOverReaders(int* memory) {
  extern __shared__ int shared[];
  int sum = 0;
  for (int turn = 0; turn < 2; ++turn) {
    ptx::CopyAsync16(shared + 4 * threadIdx.x, memory + 4 * threadIdx.x, true);  // fault
    ptx::CommitCopies();
    ptx::WaitForCopies<0>();
    __syncthreads();
    sum += shared[255 - threadIdx.x];  // fault
    if (!kFaulty) __syncthreads();
  }
  memory[512 + threadIdx.x] = sum;
}

template <bool kFaulty>
__global__ void TwoBarriers(int* memory) {
  if (kFaulty && threadIdx.x < 32) {
    __syncthreads();  // fault
  } else {
    __syncthreads();  // fault
  }
  memory[threadIdx.x] = 1;
}

template <bool kFaulty>
__global__ void LeavesBeforeBarrier(int* memory) {
  if (kFaulty && threadIdx.x == 40) return;
  memory[threadIdx.x] = 1;
  __syncthreads();  // fault
}

template <bool kFaulty>
__global__ void ShuffleWithExitedLane(int* memory) {
  if (kFaulty && threadIdx.x == 7) return;
  memory[threadIdx.x] = __shfl_xor_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1);  // fault
}

template <bool kFaulty>
__global__ void ShuffleOutsideItsMask(int* memory) {
  if (threadIdx.x >= 16) return;
  memory[threadIdx.x] = __shfl_down_sync(0xffffu, 1, 8, kFaulty ? 32 : 16);  // fault
}

template <bool kFaulty>
__global__ void CallerNotInMask(int* memory) {
  const unsigned mask = kFaulty ? 0xfffffffeu : 0xffffffffu;
  if (kFaulty || threadIdx.x < 32) memory[threadIdx.x] = __any_sync(mask, 1);  // fault
}

template <bool kFaulty>
__global__ void DifferentOperations(int* memory) {
  if (kFaulty && threadIdx.x < 16) {
    memory[threadIdx.x] = static_cast<int>(__ballot_sync(0xffffffffu, 1));  // fault
  } else {
    memory[threadIdx.x] = __shfl_sync(0xffffffffu, 1, 0);  // fault
  }
}

template <bool kFaulty>
__global__ void BarrierNeverMet(int* memory) {
  if (threadIdx.x < 32) {
    ptx::SyncBarrier(1, 96);  // fault
  } else if (!kFaulty || threadIdx.x < 64) {
    ptx::ArriveAtBarrier(1, 96);
  }
  memory[threadIdx.x] = 1;
}

template <bool kFaulty>
__global__ void DifferentCounts(int* memory) {
  ptx::SyncBarrier(2, kFaulty && threadIdx.x < 32 ? 64 : 96);  // fault
  memory[threadIdx.x] = 1;
}

template <bool kFaulty>
__global__ void WaitsForEachOther(int* memory) {
  if (threadIdx.x == 0) {
    __syncwarp(kFaulty ? 3 : 1);  // fault
  } else if (threadIdx.x == 1) {
    __syncwarp(kFaulty ? 6 : 2);  // fault
  } else if (threadIdx.x == 2) {
    __syncwarp(kFaulty ? 5 : 4);  // fault
  }
  memory[threadIdx.x] = 1;
}

// Waits for a flag that another block sets, or nobody.
template <bool kFaulty>
__global__ void SpinsForever(int* memory) {
  volatile int* flag = memory;
  if (blockIdx.x == 0) {
    while (*flag == 0) {  // fault
    }
  } else if (!kFaulty) {
    *flag = 1;
  }
}

namespace testing {
namespace {

template <void (*kFaulty)(int*), void (*kRight)(int*), int kBlocks, int kThreads, int kShared>
cudaError_t StartEither(bool faulty, int* memory) {
  return Start(faulty ? kFaulty : kRight, kBlocks, kThreads, kShared, memory);
}

}  // namespace

#define QUERN_FAULT(kernel, fault, blocks, threads, shared, ...)             \
  FaultCase {                                                                \
    #kernel, simt::Fault::fault,                                             \
        StartEither<kernel<true>, kernel<false>, blocks, threads, shared>, { \
      __VA_ARGS__                                                            \
    }                                                                        \
  }

const std::vector<FaultCase>& OrderFaults() {
  static const std::vector<FaultCase> cases = {
      QUERN_FAULT(ReadBeforeBarrier, kRace, 1, 64, 0, "shared memory", "tile (256 bytes)",
                  "order_fault_kernels.cu:"),
      QUERN_FAULT(OverwriteBeforeBarrier, kRace, 1, 64, 256, "the dynamic array"),
      QUERN_FAULT(OneReaderNotWaitedFor, kRace, 1, 128, 16, "the dynamic array (16 bytes) + 0"),
      QUERN_FAULT(WithinAWarp, kRace, 1, 32, 0, "no barrier orders them"),
      QUERN_FAULT(BytesOfOneWord, kRace, 1, 64, 0, "write of 1 bytes of global memory"),
      QUERN_FAULT(GlobalWithinABlock, kRace, 1, 64, 0, "global memory"),
      QUERN_FAULT(GlobalAcrossBlocks, kRace, 2, 32, 0, "block (0, 0, 0)", "block (1, 0, 0)"),
      QUERN_FAULT(LastBlockWithoutFence, kRace, 4, 32, 0, "atomics with fences"),
      QUERN_FAULT(FlagWithoutFence, kRace, 2, 1, 0, "atomics with fences"),
      QUERN_FAULT(LockWithoutFence, kRace, 2, 32, 0, "atomics with fences"),
      QUERN_FAULT(PlainAndAtomic, kRace, 1, 32, 0, "thread (5, 0, 0)", "atomic"),
      QUERN_FAULT(CopyWithoutBarrier, kRace, 1, 64, 1024, "shared memory"),
      QUERN_FAULT(CopyOverReaders, kRace, 1, 64, 1024, "the dynamic array"),
      QUERN_FAULT(TwoBarriers, kDivergentBarrier, 1, 64, 0, "while other threads"),
      QUERN_FAULT(LeavesBeforeBarrier, kDivergentBarrier, 1, 64, 0,
                  "63 threads wait in __syncthreads", "1 threads have ended"),
      QUERN_FAULT(ShuffleWithExitedLane, kExitedLane, 1, 32, 0, "lane 7", "__shfl_xor_sync"),
      QUERN_FAULT(ShuffleOutsideItsMask, kExitedLane, 1, 32, 0, "reads from lane"),
      QUERN_FAULT(CallerNotInMask, kBadMask, 1, 32, 0, "lane 0, the caller"),
      QUERN_FAULT(DifferentOperations, kDivergentWarp, 1, 32, 0, "__ballot_sync", "__shfl_sync"),
      QUERN_FAULT(BarrierNeverMet, kHang, 1, 96, 0, "32 threads wait in barrier.sync"),
      QUERN_FAULT(DifferentCounts, kDivergentBarrier, 1, 96, 0, "64", "96"),
      QUERN_FAULT(WaitsForEachOther, kHang, 1, 32, 0, "1 threads wait in __syncwarp"),
      QUERN_FAULT(SpinsForever, kHang, 2, 1, 0, "only polled"),
  };
  return cases;
}

}  // namespace testing
}  // namespace quern::kernels
