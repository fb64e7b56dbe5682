#pragma once

// The PTX instructions that the kernels use, one small function each. Nothing else in kernels/cuda
// holds assembly: whatever runs the kernels without a GPU replaces this file alone. PTX ISA 8.x,
// the section of each is named. sm_80 and later.

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

__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most `kLeft` of this thread's newest groups of copies are still on their way.
template <int kLeft>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
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
