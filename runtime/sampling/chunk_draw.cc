#include "runtime/sampling/chunk_draw.h"

#include <algorithm>
#include <array>

namespace quern {

double SumOfChunks(std::span<const float> figures) {
  std::array<double, 4> sums{};  // four additions at once: each waits for the one before it
  size_t i = 0;
  for (; i + sums.size() <= figures.size(); i += sums.size()) {
    for (size_t j = 0; j < sums.size(); ++j) sums[j] += figures[i + j];
  }
  for (; i < figures.size(); ++i) sums[0] += figures[i];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

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
