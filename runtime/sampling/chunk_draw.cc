#include "runtime/sampling/chunk_draw.h"

#include <algorithm>
#include <array>

namespace quern {

int32_t DrawByChunks(const LogitScan& scan, std::span<const float> logits,
                     std::span<const float> chunk_sum, float max, float inverse_temperature,
                     double target) {
  double before = 0;
  size_t chunk = 0;
  for (size_t i = 0; i < chunk_sum.size(); ++i) {
    if (chunk_sum[i] == 0) continue;
    chunk = i;
    if (before + chunk_sum[i] > target) break;
    before += chunk_sum[i];
  }
  const size_t first = chunk * kScanChunk;
  const auto within = logits.subspan(first, std::min(kScanChunk, logits.size() - first));
  std::array<float, kScanChunk> weights;
  scan.Exp(within, max, inverse_temperature, std::span(weights).first(within.size()));
  size_t pick = 0;
  for (size_t i = 0; i < within.size(); ++i) {
    if (weights[i] == 0) continue;
    pick = i;
    before += weights[i];
    if (before > target) break;
  }
  return static_cast<int32_t>(first + pick);
}

}  // namespace quern
