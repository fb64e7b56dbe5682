#include "quern/kernels/machine_peak.h"

#include <cassert>

#if defined(QUERN_X86)
#include <immintrin.h>
#endif

#include "quern/kernels/cpu_kernels.h"

// Each loop has so many independent sums that its pipelines never wait for one: 4 or 5 cycles of
// latency times 2 instructions a cycle. The empty asm statements keep the compiler from computing
// what it knows.
namespace quern::kernels {
namespace {

#if defined(QUERN_X86)

#define QUERN_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define QUERN_TARGET_AVX512 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")))
#define QUERN_TARGET_BF16 __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512bf16")))

constexpr int kSums = 12;

// A loop of `step(sums[i])`, its sums put together in sums[0] by `add`.
#define QUERN_PEAK_LOOP(Vector, zero, step, add)               \
  Vector sums[kSums];                                          \
  for (auto& sum : sums) sum = zero;                           \
  for (int64_t n = 0; n < iterations; ++n) {                   \
    _Pragma("GCC unroll 12") for (int i = 0; i < kSums; ++i) { \
      sums[i] = step(sums[i]);                                 \
      asm volatile("" : "+v"(sums[i]));                        \
    }                                                          \
  }                                                            \
  for (int i = 1; i < kSums; ++i) sums[0] = add(sums[0], sums[i])

template <typename Element, size_t kLanes>
PeakRun Summed(const Element (&lanes)[kLanes], int64_t iterations, int64_t products) {
  PeakRun run;
  run.operations = 2 * iterations * kSums * products;
  for (Element lane : lanes) run.sum += static_cast<double>(lane);
  return run;
}

QUERN_TARGET_AVX2 PeakRun Float32Avx2(int64_t iterations) {
  __m256 one = _mm256_set1_ps(1);
  asm volatile("" : "+x"(one));
#define QUERN_STEP(sum) _mm256_fmadd_ps(one, one, sum)
  QUERN_PEAK_LOOP(__m256, _mm256_setzero_ps(), QUERN_STEP, _mm256_add_ps);
#undef QUERN_STEP
  float lanes[8];
  _mm256_storeu_ps(lanes, sums[0]);
  return Summed(lanes, iterations, 8);
}

QUERN_TARGET_AVX2 PeakRun Int16Avx2(int64_t iterations) {
  __m256i one = _mm256_set1_epi16(1);
  asm volatile("" : "+x"(one));
#define QUERN_STEP(sum) _mm256_add_epi32(sum, _mm256_madd_epi16(one, one))
  QUERN_PEAK_LOOP(__m256i, _mm256_setzero_si256(), QUERN_STEP, _mm256_add_epi32);
#undef QUERN_STEP
  int32_t lanes[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sums[0]);
  return Summed(lanes, iterations, 16);
}

QUERN_TARGET_AVX2 PeakRun Int8Avx2(int64_t iterations) {
  __m256i one = _mm256_set1_epi8(1);
  __m256i pairs = _mm256_set1_epi16(1);
  asm volatile("" : "+x"(one), "+x"(pairs));
#define QUERN_STEP(sum) \
  _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_maddubs_epi16(one, one)))
  QUERN_PEAK_LOOP(__m256i, _mm256_setzero_si256(), QUERN_STEP, _mm256_add_epi32);
#undef QUERN_STEP
  int32_t lanes[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sums[0]);
  return Summed(lanes, iterations, 32);
}

QUERN_TARGET_AVX512 PeakRun Float32Avx512(int64_t iterations) {
  __m512 one = _mm512_set1_ps(1);
  asm volatile("" : "+v"(one));
#define QUERN_STEP(sum) _mm512_fmadd_ps(one, one, sum)
  QUERN_PEAK_LOOP(__m512, _mm512_setzero_ps(), QUERN_STEP, _mm512_add_ps);
#undef QUERN_STEP
  float lanes[16];
  _mm512_storeu_ps(lanes, sums[0]);
  return Summed(lanes, iterations, 16);
}

QUERN_TARGET_AVX512 PeakRun Int16Avx512(int64_t iterations) {
  __m512i one = _mm512_set1_epi16(1);
  asm volatile("" : "+v"(one));
#define QUERN_STEP(sum) _mm512_dpwssd_epi32(sum, one, one)
  QUERN_PEAK_LOOP(__m512i, _mm512_setzero_si512(), QUERN_STEP, _mm512_add_epi32);
#undef QUERN_STEP
  int32_t lanes[16];
  _mm512_storeu_si512(lanes, sums[0]);
  return Summed(lanes, iterations, 32);
}

QUERN_TARGET_AVX512 PeakRun Int8Avx512(int64_t iterations) {
  __m512i one = _mm512_set1_epi8(1);
  asm volatile("" : "+v"(one));
#define QUERN_STEP(sum) _mm512_dpbusd_epi32(sum, one, one)
  QUERN_PEAK_LOOP(__m512i, _mm512_setzero_si512(), QUERN_STEP, _mm512_add_epi32);
#undef QUERN_STEP
  int32_t lanes[16];
  _mm512_storeu_si512(lanes, sums[0]);
  return Summed(lanes, iterations, 64);
}

QUERN_TARGET_BF16 PeakRun Bfloat16Avx512(int64_t iterations) {
  __m512i bits = _mm512_set1_epi16(0x3f80);  // 1.0
  asm volatile("" : "+v"(bits));
  const __m512bh one = reinterpret_cast<__m512bh&>(bits);
#define QUERN_STEP(sum) _mm512_dpbf16_ps(sum, one, one)
  QUERN_PEAK_LOOP(__m512, _mm512_setzero_ps(), QUERN_STEP, _mm512_add_ps);
#undef QUERN_STEP
  float lanes[16];
  _mm512_storeu_ps(lanes, sums[0]);
  return Summed(lanes, iterations, 32);
}

QUERN_TARGET_AVX2 uint64_t SumWordsAvx2(const uint64_t* words, size_t count) {
  __m256i sums[8];
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  size_t i = 0;
  for (; i + 32 <= count; i += 32) {
    _Pragma("GCC unroll 8") for (size_t v = 0; v < 8; ++v) {
      sums[v] = _mm256_add_epi64(
          sums[v], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words + i + 4 * v)));
    }
  }
  for (size_t v = 1; v < 8; ++v) sums[0] = _mm256_add_epi64(sums[0], sums[v]);
  uint64_t lanes[4];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sums[0]);
  uint64_t total = lanes[0] + lanes[1] + lanes[2] + lanes[3];
  for (; i < count; ++i) total += words[i];
  return total;
}

#endif

}  // namespace

std::string_view PeakKindName(PeakKind kind) {
  switch (kind) {
    case PeakKind::kFloat32:
      return "fp32";
    case PeakKind::kBfloat16:
      return "bf16";
    case PeakKind::kInt16:
      return "int16";
    case PeakKind::kInt8:
      return "int8";
  }
  return "";
}

bool HasPeak(PeakKind kind) {
#if defined(QUERN_X86)
  if (kind != PeakKind::kBfloat16) return CpuSupports(CpuIsa::kAvx2);
  return CpuSupports(CpuIsa::kAvx512) && __builtin_cpu_supports("avx512bf16");
#else
  (void)kind;
  return false;
#endif
}

PeakRun RunPeakLoop(PeakKind kind, int64_t iterations) {
  assert(HasPeak(kind));
#if defined(QUERN_X86)
  const bool wide = CpuSupports(CpuIsa::kAvx512);
  switch (kind) {
    case PeakKind::kFloat32:
      return wide ? Float32Avx512(iterations) : Float32Avx2(iterations);
    case PeakKind::kBfloat16:
      return Bfloat16Avx512(iterations);
    case PeakKind::kInt16:
      return wide ? Int16Avx512(iterations) : Int16Avx2(iterations);
    case PeakKind::kInt8:
      return wide ? Int8Avx512(iterations) : Int8Avx2(iterations);
  }
#endif
  (void)iterations;
  return {};
}

uint64_t SumWords(const uint64_t* words, size_t count) {
#if defined(QUERN_X86)
  if (CpuSupports(CpuIsa::kAvx2)) return SumWordsAvx2(words, count);
#endif
  uint64_t total = 0;
  for (size_t i = 0; i < count; ++i) total += words[i];
  return total;
}

}  // namespace quern::kernels
