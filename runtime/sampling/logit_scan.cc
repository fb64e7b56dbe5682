#include "runtime/sampling/logit_scan.h"

#include <cassert>
#include <cstdlib>
#include <string_view>

#include "runtime/sampling/logit_scan_kernels.h"

namespace quern {

bool SupportsScanIsa(ScanIsa isa) {
#if defined(__x86_64__)
  if (isa == ScanIsa::kAvx512) return __builtin_cpu_supports("avx512f") != 0;
  if (isa == ScanIsa::kAvx2) {
    return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  }
#endif
  return isa == ScanIsa::kGeneric;
}

ScanIsa SelectScanIsa() {
  struct Choice {
    const char* name;
    ScanIsa isa;
  };
  constexpr Choice kBestFirst[] = {
      {"avx512", ScanIsa::kAvx512}, {"avx2", ScanIsa::kAvx2}, {"scalar", ScanIsa::kGeneric}};
  const char* variable = std::getenv("QUERN_CPU_ISA");
  const std::string_view wanted = variable != nullptr ? variable : "";
  ScanIsa best = ScanIsa::kGeneric;
  for (const Choice& choice : kBestFirst) {
    if (!SupportsScanIsa(choice.isa)) continue;
    if (wanted == choice.name) return choice.isa;
    if (best == ScanIsa::kGeneric) best = choice.isa;
  }
  return best;
}

LogitScan::LogitScan(ScanIsa isa) : isa_(isa) { assert(SupportsScanIsa(isa)); }

#if defined(__x86_64__)
#define QUERN_SCAN_CALL(call)   \
  switch (isa_) {               \
    case ScanIsa::kAvx512:      \
      return scan_avx512::call; \
    case ScanIsa::kAvx2:        \
      return scan_avx2::call;   \
    case ScanIsa::kGeneric:     \
      break;                    \
  }                             \
  return scan_generic::call
#else
#define QUERN_SCAN_CALL(call) return scan_generic::call
#endif

bool LogitScan::ChunkMax(std::span<const float> logits, std::span<float> chunk_max) const {
  assert(chunk_max.size() == NumScanChunks(logits.size()));
  QUERN_SCAN_CALL(ChunkMax(logits.data(), logits.size(), chunk_max.data()));
}

void LogitScan::ChunkSumExp(std::span<const float> logits, float max, float inverse_temperature,
                            std::span<float> chunk_sum) const {
  assert(chunk_sum.size() == NumScanChunks(logits.size()));
  QUERN_SCAN_CALL(
      ChunkSumExp(logits.data(), logits.size(), max, inverse_temperature, chunk_sum.data()));
}

void LogitScan::ChunkMoments(std::span<const float> logits, float max, float inverse_temperature,
                             std::span<float> chunk_sum, std::span<float> moment) const {
  assert(chunk_sum.size() == NumScanChunks(logits.size()) && moment.size() == chunk_sum.size());
  QUERN_SCAN_CALL(ChunkMoments(logits.data(), logits.size(), max, inverse_temperature,
                               chunk_sum.data(), moment.data()));
}

void LogitScan::ChunkSumExpNear(std::span<const float> logits, std::span<const float> chunk_max,
                                float max, float inverse_temperature, float centre, float reach,
                                std::span<float> chunk_sum) const {
  assert(chunk_sum.size() == NumScanChunks(logits.size()) && chunk_max.size() == chunk_sum.size());
  QUERN_SCAN_CALL(ChunkSumExpNear(logits.data(), logits.size(), chunk_max.data(), max,
                                  inverse_temperature, centre, reach, chunk_sum.data()));
}

void LogitScan::Exp(std::span<const float> in, float max, float inverse_temperature,
                    std::span<float> out) const {
  assert(out.size() == in.size());
  QUERN_SCAN_CALL(Exp(in.data(), in.size(), max, inverse_temperature, out.data()));
}

}  // namespace quern
