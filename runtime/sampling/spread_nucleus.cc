#include "runtime/sampling/spread_nucleus.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>

namespace quern {
namespace {

// A few of each chunk, not every so many chunks: tokens with ids next to each other are alike.
constexpr size_t kSampledOfChunk = 4;
constexpr double kTokensPerSample = double{kScanChunk} / kSampledOfChunk;
constexpr size_t kCutBuckets = 1024;
// What is deeper below the maximum, in units of the temperature, weighs nothing: all of 262,144
// tokens together 3e-8 of the maximum's.
constexpr float kDepth = 30;

}  // namespace

double SpreadNucleus::Sample(const Distribution& of) {
  assert(of.logits.size() >= kLeastLogits);
  const size_t chunks = of.logits.size() / kScanChunk;  // a partial one is left out
  sample_.resize(chunks * kSampledOfChunk);
  for (size_t chunk = 0; chunk < chunks; ++chunk) {
    std::memcpy(sample_.data() + chunk * kSampledOfChunk, of.logits.data() + chunk * kScanChunk,
                kSampledOfChunk * sizeof(float));
  }
  const Sums sums = Sum(sample_, of, of.head, of.head);
  return (sums.all - sums.above) * kTokensPerSample;
}

SpreadNucleus::Sums SpreadNucleus::Sum(std::span<const float> logits, const Distribution& of,
                                       float low, float high) {
  const size_t chunks = NumScanChunks(logits.size());
  all_.resize(chunks);
  above_.resize(chunks);
  near_groups_.resize(chunks);
  scan_.ChunkSumExpAbout(logits, of.max, of.inverse_temperature, low, high,
                         {all_, above_, near_groups_});
  Sums sums{0, 0};
  for (size_t chunk = 0; chunk < chunks; ++chunk) {
    sums.all += all_[chunk];
    sums.above += above_[chunk];
  }
  return sums;
}

SpreadNucleus::Drawn SpreadNucleus::Draw(const Distribution& of, double share, double u) {
  Drawn drawn;
  DropHeadOfSample(of);
  for (const double deviations : {3.0, 16.0}) {
    const auto range = Estimate(of, share, deviations);
    if (!range) break;
    drawn = DrawWithin(of, share, u, *range);
    // Wider bounds would not help where the head alone has the share.
    if (drawn.id || of.head_weight >= share * drawn.total_weight) break;
  }
  return drawn;
}

void SpreadNucleus::DropHeadOfSample(const Distribution& of) {
  const float least = of.max - kDepth / of.inverse_temperature;
  size_t kept = 0;
  for (const float logit : sample_) {
    sample_[kept] = logit;
    kept += static_cast<size_t>((logit >= least) & (logit < of.head));
  }
  sample_.resize(kept);
  sample_weights_.resize(kept);
  scan_.Exp(sample_, of.max, of.inverse_temperature, sample_weights_);
}

// With A the weight above a cut and B the one below, it keeps the share p where
// (1 - p) A - p B = 0: A grows and B falls with depth, and both are estimated by sums over the
// sample, whose variances are the sums of squares. To those comes a token at the cut that the
// sample has missed.
std::optional<SpreadNucleus::Range> SpreadNucleus::Estimate(const Distribution& of, double share,
                                                            double deviations) {
  if (sample_.empty()) return std::nullopt;
  const float top = std::min(of.max, of.head);
  const float bottom = *std::min_element(sample_.begin(), sample_.end());
  const float scale = static_cast<float>(kCutBuckets - 1) / (top - bottom);
  if (!(scale > 0) || std::isinf(scale)) return std::nullopt;
  buckets_.assign(kCutBuckets, {});
  double below = 0, below_square = 0;
  for (size_t i = 0; i < sample_.size(); ++i) {
    const double weight = sample_weights_[i] * kTokensPerSample;
    Bucket& bucket =
        buckets_[static_cast<size_t>(static_cast<int32_t>((top - sample_[i]) * scale))];
    bucket.weight += weight;
    bucket.square += weight * weight;
    below += weight;
    below_square += weight * weight;
  }
  Range range{std::numeric_limits<float>::lowest(), of.head};
  double above = of.head_weight, above_square = 0;
  double edge_weight = kTokensPerSample * std::exp((double{top} - of.max) * of.inverse_temperature);
  const double edge_factor = std::exp(-double{of.inverse_temperature} / scale);
  for (size_t b = 0; b < kCutBuckets; ++b) {
    above += buckets_[b].weight;
    above_square += buckets_[b].square;
    below -= buckets_[b].weight;
    below_square -= buckets_[b].square;
    edge_weight *= edge_factor;
    const float edge = top - static_cast<float>(b + 1) / scale;
    const double excess = (1 - share) * above - share * below;
    const double variance = (1 - share) * (1 - share) * above_square +
                            share * share * std::max(0.0, below_square) + edge_weight * edge_weight;
    const double margin = deviations * std::sqrt(variance);
    if (excess < -margin) range.high = edge;
    if (excess > margin) {
      range.low = edge;
      break;
    }
  }
  return range;
}

SpreadNucleus::Drawn SpreadNucleus::DrawWithin(const Distribution& of, double share, double u,
                                               Range range) {
  const Sums sums = Sum(of.logits, of, range.low, range.high);
  Drawn drawn{std::nullopt, sums.all};
  const double mass = share * sums.all;
  if (sums.above >= mass) return drawn;
  near_.Clear();
  near_.CollectBetween(of.logits, near_groups_, range.low, range.high);
  near_.Weigh(scan_, of.max, of.inverse_temperature);
  if (sums.above + near_.TotalWeight() < mass) return drawn;
  near_.KeepTopP(mass - sums.above);
  drawn.id = Pick(of, u * (sums.above + near_.TotalWeight()), range.high);
  return drawn;
}

int32_t SpreadNucleus::Pick(const Distribution& of, double target, float high) const {
  const auto ids = near_.ids();
  const auto weights = near_.weights();
  // The chunk in which the sum exceeds the target, or the last that has any weight.
  double sum = 0, before = 0;
  size_t chosen = 0, chosen_near = 0, next = 0;
  for (size_t chunk = 0; chunk < above_.size() && sum <= target; ++chunk) {
    const size_t first_near = next;
    const auto end = static_cast<int32_t>((chunk + 1) * kScanChunk);
    double weight = above_[chunk];
    for (; next < ids.size() && ids[next] < end; ++next) weight += weights[next];
    if (weight == 0) continue;
    chosen = chunk;
    chosen_near = first_near;
    before = sum;
    sum += weight;
  }
  const size_t first = chosen * kScanChunk;
  const auto within = of.logits.subspan(first, std::min(kScanChunk, of.logits.size() - first));
  std::array<float, kScanChunk> terms;
  scan_.Exp(within, of.max, of.inverse_temperature, std::span(terms).first(within.size()));
  size_t pick = 0;
  for (size_t i = 0; i < within.size(); ++i) {
    const bool is_near =
        chosen_near < ids.size() && ids[chosen_near] == static_cast<int32_t>(first + i);
    chosen_near += is_near ? 1 : 0;
    if (terms[i] == 0 || (within[i] < high && !is_near)) continue;
    pick = i;
    before += terms[i];
    if (before > target) break;
  }
  return static_cast<int32_t>(first + pick);
}

}  // namespace quern
