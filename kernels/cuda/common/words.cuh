#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace quern::kernels {

// kBytes (2, 4, 8 or 16) as one access, from words.
template <int kBytes>
__device__ __forceinline__ void StoreBytes(void* to, const uint32_t* words) {
  static_assert(kBytes == 2 || kBytes == 4 || kBytes == 8 || kBytes == 16);
  if constexpr (kBytes == 2) *static_cast<uint16_t*>(to) = static_cast<uint16_t>(words[0]);
  if constexpr (kBytes == 4) *static_cast<uint32_t*>(to) = words[0];
  if constexpr (kBytes == 8) *static_cast<uint2*>(to) = make_uint2(words[0], words[1]);
  if constexpr (kBytes == 16) {
    *static_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}
template <int kBytes>
__device__ __forceinline__ void LoadBytes(const void* from, uint32_t* words) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  if constexpr (kBytes == 4) words[0] = *static_cast<const uint32_t*>(from);
  if constexpr (kBytes == 8) {
    const uint2 two = *static_cast<const uint2*>(from);
    words[0] = two.x;
    words[1] = two.y;
  }
  if constexpr (kBytes == 16) {
    const uint4 four = *static_cast<const uint4*>(from);
    words[0] = four.x;
    words[1] = four.y;
    words[2] = four.z;
    words[3] = four.w;
  }
}

}  // namespace quern::kernels
