#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace quern::kernels {

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), as
// runtime/sampling/philox.h has it.
__device__ __forceinline__ uint4 Philox4x32(uint4 counter, uint2 key) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter.x;
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter.z;
    counter = make_uint4(
        static_cast<uint32_t>(product1 >> 32) ^ counter.y ^ key.x, static_cast<uint32_t>(product1),
        static_cast<uint32_t>(product0 >> 32) ^ counter.w ^ key.y, static_cast<uint32_t>(product0));
    key.x += 0x9E3779B9u;
    key.y += 0xBB67AE85u;
  }
  return counter;
}

// The uniform in [0, 1) of runtime/sampling's UniformAt times 2^64: its 53 bits, then zeros.
__device__ __forceinline__ unsigned long long UniformBits(uint64_t seed, uint64_t position,
                                                          uint32_t draw) {
  const uint4 bits = Philox4x32(
      make_uint4(static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), draw, 0),
      make_uint2(static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)));
  return ((static_cast<unsigned long long>(bits.y) << 32 | bits.x) >> 11) << 11;
}

}  // namespace quern::kernels
