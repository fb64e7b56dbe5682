#include "runtime/sampling/candidates.h"

#include <algorithm>
#include <cassert>

namespace quern {

void Candidates::Clear() {
  ids_.clear();
  logits_.clear();
  weights_.clear();
}

void Candidates::Collect(std::span<const float> logits, std::span<const float> chunk_max,
                         float threshold) {
  for (size_t chunk = 0; chunk < chunk_max.size(); ++chunk) {
    if (chunk_max[chunk] < threshold) continue;
    const size_t end = std::min(logits.size(), (chunk + 1) * kScanChunk);
    for (size_t id = chunk * kScanChunk; id < end; ++id) {
      if (logits[id] < threshold) continue;
      ids_.push_back(static_cast<int32_t>(id));
      logits_.push_back(logits[id]);
    }
  }
}

void Candidates::Weigh(const LogitScan& scan, float max, float inverse_temperature) {
  weights_.resize(logits_.size());
  scan.Exp(logits_, max, inverse_temperature, weights_);
}

void Candidates::KeepTopK(size_t k) {
  assert(k >= 1);
  if (k >= size()) return;
  FillRanked();
  const auto last = ranked_.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(ranked_.begin(), last, ranked_.end(), RanksBefore);
  KeepUpTo(*last);
}

void Candidates::KeepTopP(double mass) {
  assert(weights_.size() == size());
  if (size() <= 1) return;
  FillRanked();
  // Selection by weight instead of by count: halve the range that holds the last token to keep,
  // having summed what ranks before it. The ranges add up to twice the size, so nothing is ever
  // fully sorted.
  size_t low = 0, high = ranked_.size();
  double before = 0;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    const auto begin = ranked_.begin();
    std::nth_element(begin + static_cast<std::ptrdiff_t>(low),
                     begin + static_cast<std::ptrdiff_t>(middle),
                     begin + static_cast<std::ptrdiff_t>(high), RanksBefore);
    double sum = 0;
    for (size_t i = low; i < middle; ++i) sum += ranked_[i].weight;
    if (before + sum >= mass) {
      high = middle;
    } else {
      before += sum;
      low = middle;
    }
  }
  KeepUpTo(ranked_[low]);
}

double Candidates::TotalWeight() const {
  double total = 0;
  for (const float weight : weights_) total += weight;
  return total;
}

int32_t Candidates::Pick(double u) const {
  assert(!ids_.empty() && weights_.size() == size());
  const double target = u * TotalWeight();
  double sum = 0;
  size_t last = 0;
  for (size_t i = 0; i < size(); ++i) {
    if (weights_[i] == 0) continue;
    sum += weights_[i];
    last = i;
    if (sum > target) break;
  }
  return ids_[last];
}

void Candidates::FillRanked() {
  ranked_.clear();
  for (size_t i = 0; i < size(); ++i) {
    ranked_.push_back({logits_[i], ids_[i], weights_.empty() ? 0.0f : weights_[i]});
  }
}

void Candidates::KeepUpTo(const Ranked& last) {
  size_t kept = 0;
  for (size_t i = 0; i < size(); ++i) {
    if (RanksBefore(last, {logits_[i], ids_[i], 0.0f})) continue;
    ids_[kept] = ids_[i];
    logits_[kept] = logits_[i];
    if (!weights_.empty()) weights_[kept] = weights_[i];
    ++kept;
  }
  ids_.resize(kept);
  logits_.resize(kept);
  if (!weights_.empty()) weights_.resize(kept);
}

}  // namespace quern
