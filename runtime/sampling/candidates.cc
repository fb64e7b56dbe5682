#include "runtime/sampling/candidates.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <functional>
#include <limits>

namespace quern {
namespace {

constexpr size_t kBuckets = 4096;
constexpr size_t kFewEnough = 1024;  // candidates; with fewer, buckets save nothing
constexpr size_t kFewRanks = 64;     // up to here a heap of them is faster than a partition

constexpr auto kByLogit = [](float logit) { return logit; };

}  // namespace

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

float Candidates::ReachedByTopK(std::span<const float> chunk_max, size_t k) {
  if (k > chunk_max.size()) return -std::numeric_limits<float>::infinity();
  if (k <= kFewRanks) {
    top_maxima_.resize(k);
    std::partial_sort_copy(chunk_max.begin(), chunk_max.end(), top_maxima_.begin(),
                           top_maxima_.end(), std::greater<>());
    return top_maxima_.back();
  }
  top_maxima_.assign(chunk_max.begin(), chunk_max.end());
  const auto kth = top_maxima_.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(top_maxima_.begin(), kth, top_maxima_.end(), std::greater<>());
  return *kth;
}

void Candidates::Weigh(const LogitScan& scan, float max, float inverse_temperature) {
  weights_.resize(logits_.size());
  scan.Exp(logits_, max, inverse_temperature, weights_);
}

void Candidates::KeepTopK(size_t k) {
  assert(k >= 1);
  if (k >= size()) return;
  const auto before = static_cast<size_t>(FillRanked(
      static_cast<double>(k), [](size_t) { return 1.0; }, kByLogit));
  const auto last = ranked_.begin() + static_cast<std::ptrdiff_t>(k - before - 1);
  std::nth_element(ranked_.begin(), last, ranked_.end(), RanksBefore{});
  KeepUpTo(*last, kByLogit);
}

void Candidates::KeepTopP(double mass) {
  assert(weights_.size() == size());
  if (size() <= 1) return;
  const double before = FillRanked(
      mass, [this](size_t i) { return double{weights_[i]}; }, kByLogit);
  KeepUpTo(ranked_[SelectByWeight(before, mass)], kByLogit);
}

void Candidates::KeepNearest(float logit, double mass) {
  assert(weights_.size() == size());
  if (size() <= 1) return;
  const auto nearness = [logit](float of) { return -std::abs(of - logit); };
  const double before = FillRanked(
      mass, [this](size_t i) { return double{weights_[i]}; }, nearness);
  KeepUpTo(ranked_[SelectByWeight(before, mass)], nearness);
}

size_t Candidates::SelectByWeight(double before, double mass) {
  // Selection by weight instead of by count: halve the range that holds the last token to keep,
  // having summed what ranks before it. The ranges add up to twice the size, so nothing is ever
  // fully sorted.
  size_t low = 0, high = ranked_.size();
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    const auto begin = ranked_.begin();
    std::nth_element(begin + static_cast<std::ptrdiff_t>(low),
                     begin + static_cast<std::ptrdiff_t>(middle),
                     begin + static_cast<std::ptrdiff_t>(high), RanksBefore{});
    double sum = 0;
    for (size_t i = low; i < middle; ++i) sum += ranked_[i].weight;
    if (before + sum >= mass) {
      high = middle;
    } else {
      before += sum;
      low = middle;
    }
  }
  return low;
}

double Candidates::TotalWeight() const {
  double total = 0;
  for (const float weight : weights_) total += weight;
  return total;
}

double Candidates::WeightWithin(float logit, float distance) const {
  double total = 0;
  for (size_t i = 0; i < size(); ++i) {
    if (std::abs(logits_[i] - logit) <= distance) total += weights_[i];
  }
  return total;
}

double Candidates::MeanLogit() const {
  double sum = 0;
  for (size_t i = 0; i < size(); ++i) sum += double{weights_[i]} * logits_[i];
  return sum / TotalWeight();
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

template <typename Amount, typename Key>
double Candidates::FillRanked(double target, const Amount& amount, const Key& key) {
  ranked_.clear();
  const auto add = [&](size_t i) {
    ranked_.push_back({key(logits_[i]), ids_[i], weights_.empty() ? 0.0f : weights_[i]});
  };
  const auto [low, high] = std::minmax_element(logits_.begin(), logits_.end(),
                                               [&](float a, float b) { return key(a) < key(b); });
  const float top = key(*high);
  const float scale = static_cast<float>(kBuckets - 1) / (top - key(*low));
  // All equal: the scale is infinite. Too far apart for a float: it is 0.
  if (size() <= kFewEnough || !(scale > 0) || std::isinf(scale)) {
    for (size_t i = 0; i < size(); ++i) add(i);
    return 0;
  }
  // Never decreases with rank, rounding included: a difference and a product by a constant keep the
  // order.
  const auto bucket_of = [&](size_t i) {
    return static_cast<int32_t>((top - key(logits_[i])) * scale);
  };
  buckets_.assign(kBuckets + 1, 0.0);
  for (size_t i = 0; i < size(); ++i) buckets_[static_cast<size_t>(bucket_of(i))] += amount(i);
  double before = 0;
  int32_t chosen = 0;
  for (size_t b = 0; b < buckets_.size(); ++b) {
    if (buckets_[b] == 0) continue;
    chosen = static_cast<int32_t>(b);
    if (before + buckets_[b] >= target) break;
    before += buckets_[b];
  }
  for (size_t i = 0; i < size(); ++i) {
    if (bucket_of(i) == chosen) add(i);
  }
  return before;
}

template <typename Key>
void Candidates::KeepUpTo(const Ranked& last, const Key& key) {
  // Without a branch on the outcome: with a flat distribution it is a coin's toss at every token.
  const bool weighed = !weights_.empty();
  size_t kept = 0;
  for (size_t i = 0; i < size(); ++i) {
    const int32_t id = ids_[i];
    const float logit = logits_[i];
    ids_[kept] = id;
    logits_[kept] = logit;
    if (weighed) weights_[kept] = weights_[i];
    const float rank = key(logit);
    kept += static_cast<size_t>((rank > last.logit) | ((rank == last.logit) & (id <= last.id)));
  }
  ids_.resize(kept);
  logits_.resize(kept);
  if (weighed) weights_.resize(kept);
}

}  // namespace quern
