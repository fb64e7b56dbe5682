#pragma once

// The PTX instructions that the kernels use, one small function each. Nothing else in kernels/cuda
// holds assembly: on the emulator (kernels/simt) the file of this name in its overlay takes this
// one's place. PTX ISA 8.x, the section of each is named. sm_80 and later.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace quern::kernels::ptx {

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 9.7.9.25 cp.async: 16 bytes from global to shared memory, past L1, both 16-byte aligned. Where
// `valid` is false nothing is read and zeros are written; `source` must be an address all the same.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* source, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)),
               "l"(source), "r"(valid ? 16 : 0)
               : "memory");
}

// The same of 4, 8 or 16 bytes, which their addresses are multiples of, by way of L1.
template <int kBytes>
__device__ __forceinline__ void CopyAsync(void* shared, const void* source, bool valid) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(SharedAddress(shared)),
               "l"(source), "r"(valid ? kBytes : 0), "n"(kBytes)
               : "memory");
}

__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most `kLeft` of this thread's newest groups of copies are still on their way.
template <int kLeft>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// 9.7.13 barrier.sync, barrier.arrive: one of the block's barriers 0 to 15 (0 is __syncthreads'),
// for `threads` threads in all, a multiple of 32. Who syncs waits for all of them, who arrives goes
// on.
__device__ __forceinline__ void SyncBarrier(int barrier, int threads) {
  asm volatile("barrier.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void ArriveAtBarrier(int barrier, int threads) {
  asm volatile("barrier.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// 9.7.1 lop3: (a & b) | c, in one instruction.
__device__ __forceinline__ uint32_t AndOr(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}

// 9.7.14 mma.m16n8k16, row.col, float32 accumulators: returns a * b + c. With g = lane / 4,
// t = lane % 4: a[0] holds row g, columns 2t and 2t + 1; a[1] row g + 8; a[2] and a[3] the same
// rows, columns + 8. b0 holds rows 2t and 2t + 1 of column g, b1 rows + 8. The result holds (g,
// 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
template <typename T>
__device__ __forceinline__ float4 Mma(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float4 c);

template <>
__device__ __forceinline__ float4 Mma<__half>(const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                              float4 c) {
  float4 d;
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(d.x), "=f"(d.y), "=f"(d.z), "=f"(d.w)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c.x), "f"(c.y), "f"(c.z),
        "f"(c.w));
  return d;
}

template <>
__device__ __forceinline__ float4 Mma<__nv_bfloat16>(const uint32_t (&a)[4], uint32_t b0,
                                                     uint32_t b1, float4 c) {
  float4 d;
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(d.x), "=f"(d.y), "=f"(d.z), "=f"(d.w)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c.x), "f"(c.y), "f"(c.z),
        "f"(c.w));
  return d;
}

// 9.7.14.5.15 ldmatrix: kMatrices (1, 2 or 4) matrices of 8 rows of 16 bytes from shared memory,
// the row r of matrix m at the `row` of lane 8 m + r, 16-byte aligned. Lane l gets of each the
// 16-bit elements 2 (l % 4) and the next of row l / 4: mma's A operand.
template <int kMatrices>
__device__ __forceinline__ void LoadMatrices(uint32_t (&result)[kMatrices], const void* row) {
  static_assert(kMatrices == 1 || kMatrices == 2 || kMatrices == 4);
  if constexpr (kMatrices == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(result[0])
                 : "r"(SharedAddress(row))
                 : "memory");
  } else if constexpr (kMatrices == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(result[0]), "=r"(result[1])
                 : "r"(SharedAddress(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(result[0]), "=r"(result[1]), "=r"(result[2]), "=r"(result[3])
                 : "r"(SharedAddress(row))
                 : "memory");
  }
}

// The same of the transposed matrices: lane l gets the rows 2 (l % 4) and the next of column l / 4.
template <int kMatrices>
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&result)[kMatrices],
                                                       const void* row) {
  static_assert(kMatrices == 1 || kMatrices == 2 || kMatrices == 4);
  if constexpr (kMatrices == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(result[0])
                 : "r"(SharedAddress(row))
                 : "memory");
  } else if constexpr (kMatrices == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(result[0]), "=r"(result[1])
                 : "r"(SharedAddress(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(result[0]), "=r"(result[1]), "=r"(result[2]), "=r"(result[3])
                 : "r"(SharedAddress(row))
                 : "memory");
  }
}

// 9.7.14 mma.m16n8k8, as m16n8k16 with the first half of its columns: a[0] row g, a[1] row g + 8.
template <typename T>
__device__ __forceinline__ float4 MmaK8(const uint32_t (&a)[2], uint32_t b, float4 c);

template <>
__device__ __forceinline__ float4 MmaK8<__half>(const uint32_t (&a)[2], uint32_t b, float4 c) {
  float4 d;
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};"
      : "=f"(d.x), "=f"(d.y), "=f"(d.z), "=f"(d.w)
      : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c.x), "f"(c.y), "f"(c.z), "f"(c.w));
  return d;
}

template <>
__device__ __forceinline__ float4 MmaK8<__nv_bfloat16>(const uint32_t (&a)[2], uint32_t b,
                                                       float4 c) {
  float4 d;
  asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};"
      : "=f"(d.x), "=f"(d.y), "=f"(d.z), "=f"(d.w)
      : "r"(a[0]), "r"(a[1]), "r"(b), "f"(c.x), "f"(c.y), "f"(c.z), "f"(c.w));
  return d;
}

// 9.7.14 mma.m16n8k32 of signed bytes, int32 sums that wrap around. a[0] holds row g, columns 4 t
// to 4 t + 3; a[1] row g + 8; a[2] and a[3] the same rows, columns + 16. b0 holds rows 4 t to
// 4 t + 3 of column g, b1 rows + 16.
__device__ __forceinline__ int4 MmaS8(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, int4 c) {
  int4 d;
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c.x), "r"(c.y), "r"(c.z),
        "r"(c.w));
  return d;
}

// The same of E4M3 with float32 sums. sm_89 and later; a kernel for less that comes here traps.
__device__ __forceinline__ float4 MmaE4m3(const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                          float4 c) {
  float4 d;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
  asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(d.x), "=f"(d.y), "=f"(d.z), "=f"(d.w)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c.x), "f"(c.y), "f"(c.z),
        "f"(c.w));
#else
  __trap();
  d = c;
#endif
  return d;
}

// 9.7.9.21 cvt: two numbers of E4M3, the low byte first, as a pair of binary16, which holds them
// exactly. sm_89 and later; a kernel for less that comes here traps.
__device__ __forceinline__ uint32_t E4m3ToHalves(uint16_t pair) {
  uint32_t halves;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(pair));
#else
  __trap();
  halves = pair;
#endif
  return halves;
}

// 9.7.13.13 griddepcontrol (sm_90 and later; elsewhere the grids of a stream do not overlap):
// waits until the grid before this one has ended and its writes can be seen.
__device__ __forceinline__ void WaitForPreviousGrid() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next grid of the stream begin, as far as it does not wait for this one.
__device__ __forceinline__ void LetNextGridBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace quern::kernels::ptx
