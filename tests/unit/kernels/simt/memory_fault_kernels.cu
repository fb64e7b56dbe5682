#include "kernels/cuda/common/ptx.cuh"
#include "tests/unit/kernels/simt/fault_kernels.h"
#include "tests/unit/kernels/simt/start_kernel.h"

// The lines marked "fault" are where the emulator must say that the fault is.
namespace quern::kernels {

template <bool kFaulty>
__global__ void GlobalWriteBounds(int* memory) {
  const int last = testing::kFaultInts - 64 + static_cast<int>(threadIdx.x);
  memory[last + (kFaulty ? 1 : 0)] = 1;  // fault
}

template <bool kFaulty>
__global__ void GlobalReadBounds(int* memory) {
  const int* before = memory - (kFaulty ? 4 : 0);
  memory[32 + threadIdx.x] = before[0];  // fault
}

template <bool kFaulty>
__global__ void HostPointer(int* memory, const int* host) {
  memory[threadIdx.x] = kFaulty ? host[threadIdx.x] : 0;  // fault
}

template <bool kFaulty>
__global__ void OthersLocalMemory(int* memory) {
  __shared__ int* published;
  int own = 1;
  if (threadIdx.x == 0) published = kFaulty ? &own : memory;
  __syncthreads();
  memory[64 + threadIdx.x] = *published;  // fault
  __syncthreads();
  own = memory[64];
  memory[128 + threadIdx.x] = own;
}

template <bool kFaulty>
__global__ void StaticSharedIndex(int* memory) {
  __shared__ int tile[64];
  const unsigned at = threadIdx.x + (kFaulty ? 1 : 0);
  tile[at] = 1;  // fault
  __syncthreads();
  memory[threadIdx.x] = tile[kFaulty ? 1 : threadIdx.x];
}

__device__ void Put(int* to) { *to = 1; }  // fault

template <bool kFaulty>
__global__ void StaticSharedPointer(int* memory) {
  __shared__ int tile[61];  // not the end of a cell or a cache line
  void (*volatile put)(int*) = Put;
  if (threadIdx.x < 61) put(tile + threadIdx.x + (kFaulty ? 1 : 0));
  __syncthreads();
  memory[threadIdx.x] = threadIdx.x < 61 ? tile[threadIdx.x] : 0;
}

template <bool kFaulty>
__global__ void DynamicSharedBounds(int* memory) {
  extern __shared__ int shared[];
  shared[threadIdx.x] = 1;
  __syncthreads();
  memory[threadIdx.x] = shared[threadIdx.x + (kFaulty ? 8 : 0)];  // fault
}

template <bool kFaulty>
__global__ void UninitialisedShared(int* memory) {
  __shared__ int tile[64];
  if (!kFaulty || threadIdx.x != 17) tile[threadIdx.x] = 1;
  __syncthreads();
  memory[threadIdx.x] = tile[63 - threadIdx.x];  // fault
}

// The second block must not see what the first one left.
template <bool kFaulty>
__global__ void UninitialisedInSecondBlock(int* memory) {
  extern __shared__ int shared[];
  if (!kFaulty || blockIdx.x == 0) shared[threadIdx.x] = 1;
  __syncthreads();
  memory[blockIdx.x * 64 + threadIdx.x] = shared[threadIdx.x];  // fault
}

template <bool kFaulty>
__global__ void UninitialisedGlobal(int* memory, int* fresh) {
  if (!kFaulty) fresh[threadIdx.x] = 2;
  memory[threadIdx.x] = fresh[threadIdx.x];  // fault
}

template <bool kFaulty>
__global__ void MisalignedGlobal(int* memory) {
  const int* from = memory + 4 * threadIdx.x + (kFaulty ? 1 : 0);
  const int4 four = *reinterpret_cast<const int4*>(from);  // fault
  memory[512 + threadIdx.x] = four.x + four.w;
}

template <bool kFaulty>
__global__ void MisalignedShared(int* memory) {
  extern __shared__ int shared[];
  shared[2 * threadIdx.x] = shared[2 * threadIdx.x + 1] = 1;
  __syncwarp();
  const int* from = shared + (kFaulty ? 1 : 0) + threadIdx.x % 4 * 2;
  const int2 two = *reinterpret_cast<const int2*>(from);  // fault
  memory[threadIdx.x] = two.x + two.y;
}

template <bool kFaulty>
__global__ void CopyNotWaited(int* memory) {
  extern __shared__ int shared[];
  ptx::CopyAsync16(shared + 4 * threadIdx.x, memory + 4 * threadIdx.x, true);
  ptx::CommitCopies();
  if (!kFaulty) ptx::WaitForCopies<0>();
  __syncthreads();
  memory[512 + threadIdx.x] = shared[threadIdx.x];  // fault
}

// Two groups are under way, and the wait leaves one: the second, which is then read.
template <bool kFaulty>
__global__ void CopyOfTheWrongGroup(int* memory) {
  extern __shared__ int shared[];
  for (int i = 0; i < 2; ++i) {
    ptx::CopyAsync16(shared + i * 256 + 4 * threadIdx.x, memory + 4 * threadIdx.x, true);
    ptx::CommitCopies();
  }
  ptx::WaitForCopies<1>();
  __syncthreads();
  const int first = shared[threadIdx.x];
  const int second = kFaulty ? shared[256 + threadIdx.x] : 0;  // fault
  memory[512 + threadIdx.x] = first + second;
}

template <bool kFaulty>
__global__ void CopyMisaligned(int* memory) {
  extern __shared__ int shared[];
  const int* from = memory + 4 * threadIdx.x + (kFaulty ? 2 : 0);
  ptx::CopyAsync16(shared + 4 * threadIdx.x, from, true);  // fault
  ptx::CommitCopies();
  ptx::WaitForCopies<0>();
  memory[512 + threadIdx.x] = shared[4 * threadIdx.x];
}

namespace testing {
namespace {

template <void (*kFaulty)(int*), void (*kRight)(int*), int kBlocks, int kThreads, int kShared>
cudaError_t StartEither(bool faulty, int* memory) {
  return Start(faulty ? kFaulty : kRight, kBlocks, kThreads, kShared, memory);
}

cudaError_t StartHostPointer(bool faulty, int* memory) {
  return Start(faulty ? HostPointer<true> : HostPointer<false>, 1, 64, 0, memory,
               static_cast<const int*>(std::vector<int>(64).data()));
}

cudaError_t StartUninitialisedGlobal(bool faulty, int* memory) {
  void* fresh = nullptr;
  cudaMalloc(&fresh, 64 * sizeof(int));
  const cudaError_t error = Start(faulty ? UninitialisedGlobal<true> : UninitialisedGlobal<false>,
                                  1, 64, 0, memory, static_cast<int*>(fresh));
  cudaFree(fresh);
  return error;
}

}  // namespace

#define QUERN_FAULT(kernel, fault, blocks, threads, shared, ...)             \
  FaultCase {                                                                \
    #kernel, simt::Fault::fault,                                             \
        StartEither<kernel<true>, kernel<false>, blocks, threads, shared>, { \
      __VA_ARGS__                                                            \
    }                                                                        \
  }

const std::vector<FaultCase>& MemoryFaults() {
  static const std::vector<FaultCase> cases = {
      QUERN_FAULT(GlobalWriteBounds, kOutOfBounds, 1, 64, 0, "write of 4 bytes",
                  "0 bytes after the end of an allocation of 4096 bytes", "thread (63, 0, 0)"),
      QUERN_FAULT(GlobalReadBounds, kOutOfBounds, 1, 32, 0, "read of 4 bytes",
                  "16 bytes before the start of an allocation of 4096 bytes"),
      {"HostPointer", simt::Fault::kOutOfBounds, StartHostPointer, {"no device memory"}},
      QUERN_FAULT(OthersLocalMemory, kOutOfBounds, 1, 64, 0, "local memory of another thread"),
      QUERN_FAULT(StaticSharedIndex, kOutOfBounds, 1, 64, 0, "index 64", "int [64]"),
      QUERN_FAULT(StaticSharedPointer, kOutOfBounds, 1, 64, 0, "write of 4 bytes of shared memory",
                  "tile (244 bytes) + 244"),
      QUERN_FAULT(DynamicSharedBounds, kOutOfBounds, 1, 64, 256, "the dynamic array (256 bytes)"),
      QUERN_FAULT(UninitialisedShared, kUninitialised, 1, 64, 0, "tile (256 bytes) + 68",
                  "thread (46, 0, 0)"),
      QUERN_FAULT(UninitialisedInSecondBlock, kUninitialised, 2, 64, 256, "block (1, 0, 0)"),
      {"UninitialisedGlobal",
       simt::Fault::kUninitialised,
       StartUninitialisedGlobal,
       {"an allocation of 256 bytes"}},
      QUERN_FAULT(MisalignedGlobal, kMisaligned, 1, 32, 0, "read of 16 bytes", "multiple of 16"),
      QUERN_FAULT(MisalignedShared, kMisaligned, 1, 32, 512, "read of 8 bytes", "multiple of 8"),
      QUERN_FAULT(CopyNotWaited, kCopyNotWaited, 1, 64, 2048, "a cp.async of thread"),
      QUERN_FAULT(CopyOfTheWrongGroup, kCopyNotWaited, 1, 64, 2048, "a cp.async of thread"),
      QUERN_FAULT(CopyMisaligned, kMisaligned, 1, 64, 2048, "read of 16 bytes"),
  };
  return cases;
}

}  // namespace testing
}  // namespace quern::kernels
