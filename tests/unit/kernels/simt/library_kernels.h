#pragma once

#include <cuda_runtime.h>

// Kernels with cuda::atomic_ref and cooperative groups.
namespace quern::kernels::testing {

// What each thread of a block of 64 gets from the group operations, in tiles of `size` lanes (4 or
// 32), in this order.
struct GroupResults {
  int rank, size, group, groups;
  int from_second, from_before, from_after, from_partner;
  unsigned votes;
  int any, all;
  int block_rank, block_size;
  int sum;  // over the block, through shared memory and block.sync()
};
cudaError_t UseGroups(int size, GroupResults* results);

// Values that 4 blocks of 64 threads leave behind, each thread with its number n from 0 on:
// the sum of n, the maximum, the minimum, the bits or-ed, and how many exchanged a 7 (once).
cudaError_t UseAtomicRefs(int* values);

}  // namespace quern::kernels::testing
