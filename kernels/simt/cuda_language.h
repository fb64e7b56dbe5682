#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/simt/device.h"

// CUDA C++ as g++ can take it: qualifiers as macros, built-in variables and functions as functions.
// The names are CUDA's.
// NOLINTBEGIN(bugprone-reserved-identifier,bugprone-macro-parentheses,google-global-names-in-headers)

#define __global__
#define __device__
#define __host__
// Not const: cudaMemcpyToSymbol writes it. The section tells it from __device__ variables.
#define __constant__ static __attribute__((section("quern_constant")))
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __restrict__ __restrict
#define __align__(bytes) __attribute__((aligned(bytes)))
// One launch runs on one thread of the host: what is its own is the block's (shared_memory.h).
#define __shared__ thread_local

#define threadIdx (::quern::simt::ThreadIndex())
#define blockIdx (::quern::simt::BlockIndex())
// Constant for a launch, and so for whoever can read them; machine.cc sets them.
extern const quern::simt::Index blockDim;
extern const quern::simt::Index gridDim;
inline constexpr int warpSize = 32;

#define QUERN_SIMT_VECTORS(type, name, align2, align4)                        \
  struct name##1 { type x; };                                                 \
  struct alignas(align2) name##2 { type x, y; };                              \
  struct name##3 { type x, y, z; };                                           \
  struct alignas(align4) name##4 { type x, y, z, w; };                        \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }            \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
QUERN_SIMT_VECTORS(signed char, char, 2, 4)
QUERN_SIMT_VECTORS(unsigned char, uchar, 2, 4)
QUERN_SIMT_VECTORS(short, short, 4, 8)
QUERN_SIMT_VECTORS(unsigned short, ushort, 4, 8)
QUERN_SIMT_VECTORS(int, int, 8, 16)
QUERN_SIMT_VECTORS(unsigned int, uint, 8, 16)
QUERN_SIMT_VECTORS(float, float, 8, 16)
struct alignas(16) longlong2 {
  long long x, y;
};
struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};
struct alignas(16) double2 {
  double x, y;
};
#undef QUERN_SIMT_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_in = 1, unsigned y_in = 1, unsigned z_in = 1)  // NOLINT: as CUDA's
      : x(x_in), y(y_in), z(z_in) {}
};

#define QUERN_SIMT_INLINE inline __attribute__((always_inline))

QUERN_SIMT_INLINE void __syncthreads(quern::simt::Where where = quern::simt::Where::Here()) {
  quern::simt::BlockBarrier(0, "__syncthreads", where);
}
QUERN_SIMT_INLINE int __syncthreads_count(int predicate,
                                          quern::simt::Where where = quern::simt::Where::Here()) {
  return quern::simt::BlockBarrier(predicate != 0, "__syncthreads_count", where);
}
QUERN_SIMT_INLINE int __syncthreads_or(int predicate,
                                       quern::simt::Where where = quern::simt::Where::Here()) {
  return quern::simt::BlockBarrier(predicate != 0, "__syncthreads_or", where) != 0;
}
QUERN_SIMT_INLINE int __syncthreads_and(int predicate,
                                        quern::simt::Where where = quern::simt::Where::Here()) {
  return quern::simt::BlockBarrier(predicate == 0, "__syncthreads_and", where) == 0;
}
QUERN_SIMT_INLINE void __syncwarp(unsigned mask = 0xffffffffu,
                                  quern::simt::Where where = quern::simt::Where::Here()) {
  quern::simt::WarpBarrier(mask, where);
}

namespace quern::simt {
template <typename T>
T ShuffleAs(ShuffleKind kind, uint32_t mask, T value, int argument, int width, const char* name,
            Where where) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = Shuffle(kind, mask, bits, argument, width, name, where);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
}  // namespace quern::simt

#define QUERN_SIMT_SHUFFLE(name, kind)                                                          \
  template <typename T>                                                                         \
  QUERN_SIMT_INLINE T name(unsigned mask, T value, int argument, int width = warpSize,          \
                           quern::simt::Where where = quern::simt::Where::Here()) {             \
    return quern::simt::ShuffleAs(quern::simt::ShuffleKind::kind, mask, value, argument, width, \
                                  #name, where);                                                \
  }
QUERN_SIMT_SHUFFLE(__shfl_sync, kIndex)
QUERN_SIMT_SHUFFLE(__shfl_up_sync, kUp)
QUERN_SIMT_SHUFFLE(__shfl_down_sync, kDown)
QUERN_SIMT_SHUFFLE(__shfl_xor_sync, kXor)
#undef QUERN_SIMT_SHUFFLE

QUERN_SIMT_INLINE unsigned __ballot_sync(unsigned mask, int predicate,
                                         quern::simt::Where where = quern::simt::Where::Here()) {
  return quern::simt::Ballot(mask, predicate != 0, "__ballot_sync", where);
}
QUERN_SIMT_INLINE int __any_sync(unsigned mask, int predicate,
                                 quern::simt::Where where = quern::simt::Where::Here()) {
  return quern::simt::Ballot(mask, predicate != 0, "__any_sync", where) != 0;
}
QUERN_SIMT_INLINE int __all_sync(unsigned mask, int predicate,
                                 quern::simt::Where where = quern::simt::Where::Here()) {
  return quern::simt::Ballot(mask, predicate == 0, "__all_sync", where) == 0;
}
template <typename T>
QUERN_SIMT_INLINE unsigned __match_any_sync(unsigned mask, T value,
                                            quern::simt::Where where = quern::simt::Where::Here()) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return quern::simt::MatchAny(mask, bits, where);
}
template <typename T>
QUERN_SIMT_INLINE unsigned __match_all_sync(unsigned mask, T value, int* all,
                                            quern::simt::Where where = quern::simt::Where::Here()) {
  *all = __match_any_sync(mask, value, where) == mask;
  return *all != 0 ? mask : 0;
}
#define QUERN_SIMT_REDUCE(name, kind)                                                            \
  template <typename T>                                                                          \
  QUERN_SIMT_INLINE T name(unsigned mask, T value,                                               \
                           quern::simt::Where where = quern::simt::Where::Here()) {              \
    static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>);                        \
    return static_cast<T>(quern::simt::Reduce(quern::simt::ReduceKind::kind, mask,               \
                                              static_cast<uint32_t>(value), std::is_signed_v<T>, \
                                              #name, where));                                    \
  }
QUERN_SIMT_REDUCE(__reduce_add_sync, kAdd)
QUERN_SIMT_REDUCE(__reduce_min_sync, kMin)
QUERN_SIMT_REDUCE(__reduce_max_sync, kMax)
QUERN_SIMT_REDUCE(__reduce_and_sync, kAnd)
QUERN_SIMT_REDUCE(__reduce_or_sync, kOr)
QUERN_SIMT_REDUCE(__reduce_xor_sync, kXor)
#undef QUERN_SIMT_REDUCE
QUERN_SIMT_INLINE unsigned __activemask() { return quern::simt::ActiveMask(); }

// Scopes are not told apart: a block's fence orders as much as the device's.
QUERN_SIMT_INLINE void __threadfence() { quern::simt::ThreadFence(); }
QUERN_SIMT_INLINE void __threadfence_block() { quern::simt::ThreadFence(); }
QUERN_SIMT_INLINE void __threadfence_system() { quern::simt::ThreadFence(); }
QUERN_SIMT_INLINE void __nanosleep(unsigned /*nanoseconds*/) {}

namespace quern::simt {
// Not instrumented: the access is checked as an atomic one by BeginAtomic.
template <typename T, typename Fn>
__attribute__((noinline, no_sanitize("thread"))) T ReadModifyWrite(T* address, Fn change) {
  BeginAtomic(address, sizeof(T), __builtin_return_address(0));
  const T old = *address;
  const T now = change(old);
  *address = now;
  EndAtomic(address, std::memcmp(&old, &now, sizeof(T)) != 0);
  return old;
}
}  // namespace quern::simt

#define QUERN_SIMT_ATOMIC(name, ...)                                                     \
  template <typename T>                                                                  \
  QUERN_SIMT_INLINE T name(T* address, std::type_identity_t<T> value) {                  \
    return quern::simt::ReadModifyWrite(                                                 \
        address, [value](T old)                                                          \
                     __attribute__((no_sanitize("thread"))) { return T(__VA_ARGS__); }); \
  }
QUERN_SIMT_ATOMIC(atomicAdd, old + value)
QUERN_SIMT_ATOMIC(atomicSub, old - value)
QUERN_SIMT_ATOMIC(atomicExch, (static_cast<void>(old), value))
QUERN_SIMT_ATOMIC(atomicMin, value < old ? value : old)
QUERN_SIMT_ATOMIC(atomicMax, value > old ? value : old)
QUERN_SIMT_ATOMIC(atomicAnd, old& value)
QUERN_SIMT_ATOMIC(atomicOr, old | value)
QUERN_SIMT_ATOMIC(atomicXor, old ^ value)
QUERN_SIMT_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
QUERN_SIMT_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef QUERN_SIMT_ATOMIC
template <typename T>
QUERN_SIMT_INLINE T atomicCAS(T* address, std::type_identity_t<T> expected,
                              std::type_identity_t<T> desired) {
  return quern::simt::ReadModifyWrite(
      address, [ expected, desired ](T old) __attribute__((no_sanitize("thread"))) {
        return old == expected ? desired : old;
      });
}

// Loads and stores with a hint for the caches, which the emulator has not.
#define QUERN_SIMT_LOAD(name)               \
  template <typename T>                     \
  QUERN_SIMT_INLINE T name(const T* from) { \
    return *from;                           \
  }
QUERN_SIMT_LOAD(__ldg)
QUERN_SIMT_LOAD(__ldca)
QUERN_SIMT_LOAD(__ldcg)
QUERN_SIMT_LOAD(__ldcs)
QUERN_SIMT_LOAD(__ldlu)
QUERN_SIMT_LOAD(__ldcv)
#undef QUERN_SIMT_LOAD
#define QUERN_SIMT_STORE(name)                                        \
  template <typename T>                                               \
  QUERN_SIMT_INLINE void name(T* to, std::type_identity_t<T> value) { \
    *to = value;                                                      \
  }
QUERN_SIMT_STORE(__stwb)
QUERN_SIMT_STORE(__stcg)
QUERN_SIMT_STORE(__stcs)
QUERN_SIMT_STORE(__stwt)
#undef QUERN_SIMT_STORE

QUERN_SIMT_INLINE int __float_as_int(float x) { return std::bit_cast<int>(x); }
QUERN_SIMT_INLINE unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
QUERN_SIMT_INLINE float __int_as_float(int x) { return std::bit_cast<float>(x); }
QUERN_SIMT_INLINE float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
QUERN_SIMT_INLINE int __popc(unsigned x) { return std::popcount(x); }
QUERN_SIMT_INLINE int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
QUERN_SIMT_INLINE int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
// Byte i of the result is the byte of y:x (eight bytes, x's first) that the selector's nibble i
// names in its lowest three bits.
QUERN_SIMT_INLINE unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = uint64_t{y} << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned from = selector >> (4 * i) & 7;
    result |= static_cast<unsigned>(bytes >> (8 * from) & 0xff) << (8 * i);
  }
  return result;
}
QUERN_SIMT_INLINE unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>(uint64_t{x} * y >> 32);
}
QUERN_SIMT_INLINE unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}

// Approximate on a GPU (CUDA C++ programming guide, "Intrinsic Functions"), correctly rounded or
// the C library's here. The others (expf, exp2f, tanhf, fmaxf, ...) have the C library's names.
QUERN_SIMT_INLINE float rsqrtf(float x) { return static_cast<float>(1 / std::sqrt(double{x})); }
QUERN_SIMT_INLINE float __expf(float x) { return std::exp(x); }
QUERN_SIMT_INLINE float __logf(float x) { return std::log(x); }
QUERN_SIMT_INLINE float __powf(float x, float y) { return std::pow(x, y); }
QUERN_SIMT_INLINE float __sinf(float x) { return std::sin(x); }
QUERN_SIMT_INLINE float __cosf(float x) { return std::cos(x); }
QUERN_SIMT_INLINE void sincospif(float x, float* sine, float* cosine) {
  constexpr double kPi = 3.14159265358979323846;
  *sine = static_cast<float>(std::sin(kPi * double{x}));
  *cosine = static_cast<float>(std::cos(kPi * double{x}));
}
QUERN_SIMT_INLINE float __fdividef(float x, float y) { return x / y; }
QUERN_SIMT_INLINE float __frcp_rn(float x) { return 1 / x; }
QUERN_SIMT_INLINE float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }

using std::max;
using std::min;

// NOLINTEND(bugprone-reserved-identifier,bugprone-macro-parentheses,google-global-names-in-headers)
