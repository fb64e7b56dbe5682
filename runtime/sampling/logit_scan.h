#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace quern {

// Passes over all logits of a vocabulary (up to 262,144 of them), the only part of sampling whose
// cost grows with it: vectorised, and with one figure per chunk of kScanChunk logits so that later
// passes skip most chunks.
inline constexpr size_t kScanChunk = 64;

constexpr size_t NumScanChunks(size_t n) { return (n + kScanChunk - 1) / kScanChunk; }

// Three builds of the same loops. Sums differ between them in the last bits, as their vectors have
// other widths; on one machine they are always the same.
enum class ScanIsa { kGeneric, kAvx2, kAvx512 };

bool SupportsScanIsa(ScanIsa isa);
// What this CPU is best at, or what QUERN_CPU_ISA asks for (scalar, avx2, avx512), as for the
// kernels. A value that the kernels would refuse changes nothing here.
ScanIsa SelectScanIsa();

class LogitScan {
 public:
  explicit LogitScan(ScanIsa isa = SelectScanIsa());

  // The maximum of each chunk into `chunk_max` [NumScanChunks(n)]. False when any logit is NaN or
  // infinite; the maxima then mean nothing.
  bool ChunkMax(std::span<const float> logits, std::span<float> chunk_max) const;

  // exp((logit - max) * inverse_temperature) summed over each chunk, into `chunk_sum`
  // [NumScanChunks(n)]. Terms below 1e-37 count as 0. `max` is at least every logit.
  void ChunkSumExp(std::span<const float> logits, float max, float inverse_temperature,
                   std::span<float> chunk_sum) const;

  // The same sums, and in `moment` [NumScanChunks(n)] those of the terms times (logit - max).
  void ChunkMoments(std::span<const float> logits, float max, float inverse_temperature,
                    std::span<float> chunk_sum, std::span<float> moment) const;

  // The same sums of the logits alone that are less than `reach` from `centre`; `chunk_max` as of
  // ChunkMax, which tells where there are none.
  void ChunkSumExpNear(std::span<const float> logits, std::span<const float> chunk_max, float max,
                       float inverse_temperature, float centre, float reach,
                       std::span<float> chunk_sum) const;

  // The terms of that sum themselves: out[i] = exp((in[i] - max) * inverse_temperature), relative
  // error under 3e-7.
  void Exp(std::span<const float> in, float max, float inverse_temperature,
           std::span<float> out) const;

 private:
  ScanIsa isa_;
};

}  // namespace quern
