#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// Reductions over a warp and over a thread block whose order depends on the block's size alone.
// All lanes of a warp and all threads of a block call them; all of them get the result.
namespace quern::kernels {

// Lane pairs 16 apart, then 8, 4, 2, 1: as a + b is b + a, every lane has the same bits.
__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  return value;
}

// `parts`: 32 floats of shared memory that nothing else uses during the kernel. One barrier. The
// block's threads are a multiple of 32, at most 1024, in one dimension.
__device__ __forceinline__ float BlockSum(float value, float* parts) {
  value = WarpSum(value);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  return WarpSum(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0.0f);
}

// The same for the maximum of whole numbers.
__device__ __forceinline__ uint32_t BlockMax(uint32_t value, uint32_t* parts) {
  value = __reduce_max_sync(0xffffffffu, value);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  return __reduce_max_sync(0xffffffffu,
                           threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0u);
}

// The same for a maximum of 64 bits and a sum of whole numbers; `parts`: 32 of them.
__device__ __forceinline__ unsigned long long BlockMax(unsigned long long value,
                                                       unsigned long long* parts) {
  const auto warp_max = [](unsigned long long v) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      v = max(v, __shfl_xor_sync(0xffffffffu, v, distance));
    }
    return v;
  };
  value = warp_max(value);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : 0ull);
}

// The sum of the threads before this one; that of all in *total.
__device__ __forceinline__ unsigned long long BlockScan(unsigned long long value,
                                                        unsigned long long* parts,
                                                        unsigned long long* total) {
  unsigned long long sum = value;  // of the lanes up to this one
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const unsigned long long below = __shfl_up_sync(0xffffffffu, sum, distance);
    if (static_cast<int>(threadIdx.x % 32) >= distance) sum += below;
  }
  if (threadIdx.x % 32 == 31) parts[threadIdx.x / 32] = sum;
  __syncthreads();
  unsigned long long before = sum - value;
  unsigned long long all = 0;
  for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) {
    const unsigned long long part = parts[warp];
    if (warp < threadIdx.x / 32) before += part;
    all += part;
  }
  *total = all;
  return before;
}

}  // namespace quern::kernels
