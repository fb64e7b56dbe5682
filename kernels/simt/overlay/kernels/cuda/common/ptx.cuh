#pragma once

// Stands in for kernels/cuda/common/ptx.cuh on the emulator: the same functions, in C++. What they
// do is said there.

#include <cstdint>

#include "kernels/simt/cuda_float16.h"

namespace quern::kernels::ptx {

__device__ __forceinline__ void CopyAsync16(void* shared, const void* source, bool valid) {
  simt::CopyAsync(shared, source, 16, valid);
}
template <int kBytes>
__device__ __forceinline__ void CopyAsync(void* shared, const void* source, bool valid) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  simt::CopyAsync(shared, source, kBytes, valid);
}
__device__ __forceinline__ void CommitCopies() { simt::CommitCopies(); }
template <int kLeft>
__device__ __forceinline__ void WaitForCopies() {
  simt::WaitForCopies(kLeft);
}

__device__ __forceinline__ void SyncBarrier(int barrier, int threads,
                                            simt::Where where = simt::Where::Here()) {
  simt::NamedBarrierSync(barrier, threads, where);
}
__device__ __forceinline__ void ArriveAtBarrier(int barrier, int threads,
                                                simt::Where where = simt::Where::Here()) {
  simt::NamedBarrierArrive(barrier, threads, where);
}

__device__ __forceinline__ uint32_t AndOr(uint32_t a, uint32_t b, uint32_t c) {
  return (a & b) | c;
}

template <int kMatrices>
__device__ __forceinline__ void LoadMatrices(uint32_t (&result)[kMatrices], const void* row,
                                             simt::Where where = simt::Where::Here()) {
  simt::LoadMatrices(result, kMatrices, false, row, where);
}
template <int kMatrices>
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&result)[kMatrices],
                                                       const void* row,
                                                       simt::Where where = simt::Where::Here()) {
  simt::LoadMatrices(result, kMatrices, true, row, where);
}

__device__ __forceinline__ float4 MmaFloat(simt::MmaKind kind, simt::MmaOperands operands, float4 c,
                                           simt::Where where) {
  operands.c[0] = __float_as_uint(c.x);
  operands.c[1] = __float_as_uint(c.y);
  operands.c[2] = __float_as_uint(c.z);
  operands.c[3] = __float_as_uint(c.w);
  simt::Mma(kind, operands, where);
  return {__uint_as_float(operands.c[0]), __uint_as_float(operands.c[1]),
          __uint_as_float(operands.c[2]), __uint_as_float(operands.c[3])};
}

template <typename T>
__device__ __forceinline__ float4 Mma(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float4 c,
                                      simt::Where where = simt::Where::Here()) {
  static_assert(std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>);
  constexpr auto kKind =
      std::is_same_v<T, __half> ? simt::MmaKind::kF16K16 : simt::MmaKind::kBf16K16;
  return MmaFloat(kKind, {{a[0], a[1], a[2], a[3]}, {b0, b1}, {}}, c, where);
}
template <typename T>
__device__ __forceinline__ float4 MmaK8(const uint32_t (&a)[2], uint32_t b, float4 c,
                                        simt::Where where = simt::Where::Here()) {
  static_assert(std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>);
  constexpr auto kKind = std::is_same_v<T, __half> ? simt::MmaKind::kF16K8 : simt::MmaKind::kBf16K8;
  return MmaFloat(kKind, {{a[0], a[1], 0, 0}, {b, 0}, {}}, c, where);
}
__device__ __forceinline__ int4 MmaS8(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, int4 c,
                                      simt::Where where = simt::Where::Here()) {
  simt::MmaOperands operands{{a[0], a[1], a[2], a[3]},
                             {b0, b1},
                             {static_cast<uint32_t>(c.x), static_cast<uint32_t>(c.y),
                              static_cast<uint32_t>(c.z), static_cast<uint32_t>(c.w)}};
  simt::Mma(simt::MmaKind::kS8K32, operands, where);
  return {static_cast<int>(operands.c[0]), static_cast<int>(operands.c[1]),
          static_cast<int>(operands.c[2]), static_cast<int>(operands.c[3])};
}
__device__ __forceinline__ float4 MmaE4m3(const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                          float4 c, simt::Where where = simt::Where::Here()) {
  return MmaFloat(simt::MmaKind::kE4m3K32, {{a[0], a[1], a[2], a[3]}, {b0, b1}, {}}, c, where);
}

__device__ __forceinline__ uint32_t E4m3ToHalves(uint16_t pair) {
  const auto half = [](uint32_t bits) -> uint32_t {
    const float value = simt::Widen(simt::FloatFormat::kE4m3, bits);
    return __half_as_ushort(__float2half_rn(value));
  };
  return half(pair & 0xffu) | half(pair >> 8) << 16;
}

// The grids of a stream do not overlap here.
__device__ __forceinline__ void WaitForPreviousGrid() {}
__device__ __forceinline__ void LetNextGridBegin() {}

}  // namespace quern::kernels::ptx
