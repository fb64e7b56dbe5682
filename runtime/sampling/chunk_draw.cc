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

void SumThroughChunks(std::span<const float> figures, std::vector<double>& through) {
  through.resize(figures.size());
  double sum = 0;
  for (size_t i = 0; i < figures.size(); ++i) {
    sum += figures[i];
    through[i] = sum;
  }
}

int32_t DrawByChunks(const LogitScan& scan, std::span<const float> logits,
                     std::span<const double> through, float max, float inverse_temperature,
                     double target) {
  // The first chunk that the sum exceeds the target in; for one that rounding put at the very end,
  // the last that weighs anything.
  auto found = std::upper_bound(through.begin(), through.end(), target);
  if (found == through.end())
    found = std::lower_bound(through.begin(), through.end(), through.back());
  const auto chunk = static_cast<size_t>(found - through.begin());
  double before = chunk == 0 ? 0 : through[chunk - 1];
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
