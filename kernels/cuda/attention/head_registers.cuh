#pragma once

#include "kernels/cuda/common/convert.cuh"
#include "kernels/cuda/common/words.cuh"

// A head in a warp's registers: 32 * kOwn elements, kOwn neighbouring ones in each lane.
namespace quern::kernels {

template <typename T, int kOwn>
__device__ __forceinline__ void LoadHead(const uint16_t* head, int lane, float (&x)[kOwn]) {
  uint32_t words[kOwn / 2];
  LoadBytes<kOwn * 2>(head + lane * kOwn, words);
#pragma unroll
  for (int i = 0; i < kOwn / 2; ++i) {
    const float2 pair = WidenPair<T>(words[i]);
    x[2 * i] = pair.x;
    x[2 * i + 1] = pair.y;
  }
}

template <typename T, int kOwn>
__device__ __forceinline__ void StoreHead(const float (&x)[kOwn], int lane, uint16_t* head) {
  uint32_t words[kOwn / 2];
#pragma unroll
  for (int i = 0; i < kOwn / 2; ++i) words[i] = NarrowPair<T>(x[2 * i], x[2 * i + 1]);
  StoreBytes<kOwn * 2>(head + lane * kOwn, words);
}

// The head times the Hadamard matrix over the square root of its size, as HadamardFn: the factor
// first, so that nothing overflows that the result does not, then a butterfly for each bit of an
// element's number, the lowest first (the fast Walsh-Hadamard transform), as the CPU's.
template <int kOwn>
__device__ __forceinline__ void RotateHead(int lane, float (&x)[kOwn]) {
  static_assert(kOwn == 2 || kOwn == 4 || kOwn == 8);
  constexpr float kFactor = kOwn == 2 ? 0.125f : kOwn == 4 ? 1.0f / 11.3137085f : 0.0625f;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) x[i] *= kFactor;
#pragma unroll
  for (int step = 1; step < kOwn; step *= 2) {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      if ((i & step) != 0) continue;
      const float a = x[i];
      const float b = x[i + step];
      x[i] = a + b;
      x[i + step] = a - b;
    }
  }
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const float sign = (lane & step) != 0 ? -1.0f : 1.0f;
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      x[i] = __shfl_xor_sync(0xffffffffu, x[i], step) + sign * x[i];
    }
  }
}

}  // namespace quern::kernels
