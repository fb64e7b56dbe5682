#include <cooperative_groups.h>

#include <cuda/atomic>

#include "tests/unit/kernels/simt/fault_kernels.h"
#include "tests/unit/kernels/simt/library_kernels.h"
#include "tests/unit/kernels/simt/start_kernel.h"

namespace quern::kernels {

namespace cg = cooperative_groups;
using testing::GroupResults;

template <unsigned kSize>
__global__ void GroupsKernel(GroupResults* results) {
  __shared__ int values[64];
  const cg::thread_block block = cg::this_thread_block();
  const cg::thread_block_tile<kSize> tile = cg::tiled_partition<kSize>(block);
  const int value = static_cast<int>(block.thread_rank() * block.thread_rank());
  GroupResults got{};
  got.rank = static_cast<int>(tile.thread_rank());
  got.size = static_cast<int>(tile.size());
  got.group = static_cast<int>(tile.meta_group_rank());
  got.groups = static_cast<int>(tile.meta_group_size());
  got.from_second = tile.shfl(value, 1);
  got.from_before = tile.shfl_up(value, 1);
  got.from_after = tile.shfl_down(value, 1);
  got.from_partner = tile.shfl_xor(value, 2);
  got.votes = tile.ballot(value % 3 == 0);
  got.any = tile.any(value == 9);
  got.all = tile.all(value < 256);
  got.block_rank = static_cast<int>(block.thread_rank());
  got.block_size = static_cast<int>(block.size());
  values[block.thread_rank()] = value;
  block.sync();
  for (int i = 0; i < 64; ++i) got.sum += values[i];
  results[block.thread_rank()] = got;
}

__global__ void AtomicRefKernel(int* values) {
  const int n = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  using Ref = cuda::atomic_ref<int, cuda::thread_scope_device>;
  Ref(values[0]).fetch_add(n, cuda::memory_order_relaxed);
  Ref(values[1]).fetch_max(n);
  Ref(values[2]).fetch_min(n);
  Ref(values[3]).fetch_or(n, cuda::memory_order_acq_rel);
  int expected = 0;
  if (Ref(values[4]).compare_exchange_strong(expected, 7)) Ref(values[5]).fetch_add(1);
}

// Another block waits for a flag.
template <bool kFaulty>
__global__ void ReleaseMissing(int* memory) {
  cuda::atomic_ref<int, cuda::thread_scope_device> flag(memory[0]);
  if (blockIdx.x == 0) {
    memory[64] = 1;  // fault
    flag.store(1, kFaulty ? cuda::memory_order_relaxed : cuda::memory_order_release);
  } else {
    while (flag.load(cuda::memory_order_acquire) == 0) {
    }
    memory[128] = memory[64];  // fault
  }
}

template <bool kFaulty>
__global__ void AcquireMissing(int* memory) {
  cuda::atomic_ref<int, cuda::thread_scope_device> flag(memory[0]);
  if (blockIdx.x == 0) {
    memory[64] = 1;  // fault
    flag.fetch_add(1, cuda::memory_order_release);
  } else {
    while (flag.load(kFaulty ? cuda::memory_order_relaxed : cuda::memory_order_acquire) == 0) {
    }
    memory[128] = memory[64];  // fault
  }
}

template <bool kFaulty>
__global__ void TileSyncMissing(int* memory) {
  __shared__ int values[32];
  const auto tile = cg::tiled_partition<32>(cg::this_thread_block());
  values[tile.thread_rank()] = 0;
  tile.sync();
  values[tile.thread_rank()] = 1;  // fault
  if (!kFaulty) tile.sync();
  memory[threadIdx.x] = values[31 - tile.thread_rank()];  // fault
}

namespace testing {

cudaError_t UseGroups(int size, GroupResults* results) {
  return size == 4 ? Start(GroupsKernel<4>, 1, 64, 0, results)
                   : Start(GroupsKernel<32>, 1, 64, 0, results);
}

cudaError_t UseAtomicRefs(int* values) { return Start(AtomicRefKernel, 4, 64, 0, values); }

#define QUERN_TEST_CASE(name, blocks, threads)                                         \
  FaultCase {                                                                          \
    #name, simt::Fault::kRace,                                                         \
        [](bool faulty, int* memory) {                                                 \
          return Start(faulty ? name<true> : name<false>, blocks, threads, 0, memory); \
        },                                                                             \
    {}                                                                                 \
  }

const std::vector<FaultCase>& LibraryFaults() {
  static const std::vector<FaultCase> cases = {
      QUERN_TEST_CASE(ReleaseMissing, 2, 1),
      QUERN_TEST_CASE(AcquireMissing, 2, 1),
      QUERN_TEST_CASE(TileSyncMissing, 1, 32),
  };
  return cases;
}

}  // namespace testing
}  // namespace quern::kernels
