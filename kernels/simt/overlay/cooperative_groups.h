#pragma once

// Stands in for CUDA's header of this name where kernels are built for the emulator: the block, and
// tiles of a warp. The names are CUDA's.

#include "kernels/simt/cuda_language.h"

namespace cooperative_groups {

using quern::simt::Where;

class thread_block {
 public:
  QUERN_SIMT_INLINE static void sync(Where where = Where::Here()) {
    quern::simt::BlockBarrier(0, "__syncthreads", where);
  }
  QUERN_SIMT_INLINE static unsigned thread_rank() {
    return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  }
  QUERN_SIMT_INLINE static unsigned num_threads() { return blockDim.x * blockDim.y * blockDim.z; }
  QUERN_SIMT_INLINE static unsigned size() { return num_threads(); }
  QUERN_SIMT_INLINE static dim3 thread_index() { return {threadIdx.x, threadIdx.y, threadIdx.z}; }
  QUERN_SIMT_INLINE static dim3 group_index() { return {blockIdx.x, blockIdx.y, blockIdx.z}; }
  QUERN_SIMT_INLINE static dim3 dim_threads() { return {blockDim.x, blockDim.y, blockDim.z}; }
};

QUERN_SIMT_INLINE thread_block this_thread_block() { return {}; }

// `kSize` lanes of a warp that lie side by side.
template <unsigned kSize>
class thread_block_tile {
  static_assert(kSize >= 1 && kSize <= 32 && std::has_single_bit(kSize));

 public:
  QUERN_SIMT_INLINE static unsigned thread_rank() { return thread_block::thread_rank() % kSize; }
  QUERN_SIMT_INLINE static constexpr unsigned num_threads() { return kSize; }
  QUERN_SIMT_INLINE static constexpr unsigned size() { return kSize; }
  QUERN_SIMT_INLINE static unsigned meta_group_rank() {
    return thread_block::thread_rank() / kSize;
  }
  QUERN_SIMT_INLINE static unsigned meta_group_size() {
    return (thread_block::num_threads() + kSize - 1) / kSize;
  }

  QUERN_SIMT_INLINE static void sync(Where where = Where::Here()) {
    quern::simt::WarpBarrier(Mask(), where);
  }
  template <typename T>
  QUERN_SIMT_INLINE static T shfl(T value, int lane, Where where = Where::Here()) {
    return __shfl_sync(Mask(), value, lane, kSize, where);
  }
  template <typename T>
  QUERN_SIMT_INLINE static T shfl_up(T value, unsigned by, Where where = Where::Here()) {
    return __shfl_up_sync(Mask(), value, static_cast<int>(by), kSize, where);
  }
  template <typename T>
  QUERN_SIMT_INLINE static T shfl_down(T value, unsigned by, Where where = Where::Here()) {
    return __shfl_down_sync(Mask(), value, static_cast<int>(by), kSize, where);
  }
  template <typename T>
  QUERN_SIMT_INLINE static T shfl_xor(T value, unsigned lanes, Where where = Where::Here()) {
    return __shfl_xor_sync(Mask(), value, static_cast<int>(lanes), kSize, where);
  }
  QUERN_SIMT_INLINE static int any(int predicate, Where where = Where::Here()) {
    return __any_sync(Mask(), predicate, where);
  }
  QUERN_SIMT_INLINE static int all(int predicate, Where where = Where::Here()) {
    return __all_sync(Mask(), predicate, where);
  }
  // Bit i is that of the tile's rank i.
  QUERN_SIMT_INLINE static unsigned ballot(int predicate, Where where = Where::Here()) {
    return __ballot_sync(Mask(), predicate, where) >> First();
  }
  template <typename T>
  QUERN_SIMT_INLINE static unsigned match_any(T value, Where where = Where::Here()) {
    return __match_any_sync(Mask(), value, where) >> First();
  }

 private:
  QUERN_SIMT_INLINE static unsigned First() {
    return thread_block::thread_rank() % 32 / kSize * kSize;
  }
  QUERN_SIMT_INLINE static unsigned Mask() { return (0xffffffffu >> (32 - kSize)) << First(); }
};

template <unsigned kSize>
QUERN_SIMT_INLINE thread_block_tile<kSize> tiled_partition(const thread_block& /*block*/) {
  return {};
}

}  // namespace cooperative_groups
