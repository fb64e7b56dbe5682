#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace quern::kernels {

// What one core can do at most, for saying which part of it the kernels reach (the roofline model:
// Williams, Waterman and Patterson 2009). Each loop runs on the calling thread, in the widest
// registers that the processor has; whoever wants the machine's figure runs it on all threads and
// takes the time. Thread-safe.
enum class PeakKind {
  kFloat32,   // fused multiply-add
  kBfloat16,  // dot products of pairs, summed in float32 (vdpbf16ps)
  kInt16,     // dot products of pairs, summed in int32 (vpmaddwd, vpdpwssd)
  kInt8,      // dot products of four, summed in int32 (vpdpbusd; on AVX2 vpmaddubsw and vpmaddwd)
};
inline constexpr PeakKind kAllPeakKinds[] = {PeakKind::kFloat32, PeakKind::kBfloat16,
                                             PeakKind::kInt16, PeakKind::kInt8};

// "fp32", "bf16", "int16" or "int8".
std::string_view PeakKindName(PeakKind kind);

// Whether this processor, and this build, have instructions for it.
bool HasPeak(PeakKind kind);

struct PeakRun {
  int64_t operations = 0;  // multiplications and additions
  // What the loop has summed up: operations / 2, for all its factors are 1. Exact, as long as the
  // sum of one lane is below 2^24.
  double sum = 0;
};

// Runs `iterations` of the loop. `kind` must be one that HasPeak.
PeakRun RunPeakLoop(PeakKind kind, int64_t iterations);

// The sum, modulo 2^64, of the 64-bit words at `words`, read in order as fast as it goes.
uint64_t SumWords(const uint64_t* words, size_t count);

}  // namespace quern::kernels
