#include "runtime/sampling/sampler.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <functional>
#include <limits>

#include "runtime/sampling/chunk_draw.h"
#include "runtime/sampling/philox.h"

namespace quern {
namespace {

Error NotFinite(std::span<const float> logits) {
  for (size_t id = 0; id < logits.size(); ++id) {
    if (!std::isfinite(logits[id])) {
      return MakeError(ErrorCode::kInternal,
                       "the model's logits are not all finite numbers: token {} of {} has {}", id,
                       logits.size(), logits[id]);
    }
  }
  return MakeError(ErrorCode::kInternal, "the model's logits are not all finite numbers");
}

}  // namespace

Result<int32_t> Sampler::Sample(std::span<const float> logits, const SamplingParams& params,
                                uint64_t seed, uint64_t position) {
  assert(!logits.empty());
  chunk_max_.resize(NumScanChunks(logits.size()));
  if (!scan_.ChunkMax(logits, chunk_max_)) return NotFinite(logits);
  const float max = *std::max_element(chunk_max_.begin(), chunk_max_.end());
  if (params.temperature < kGreedyBelow || params.top_k == 1) return ArgMax(logits, max);

  double u = UniformAt(seed, position);
  const float inverse_temperature = 1.0f / params.temperature;
  const bool cuts_by_rank = params.top_k > 0 && static_cast<size_t>(params.top_k) < logits.size();
  if (cuts_by_rank || params.min_p > 0) {
    CollectForTopKMinP(logits, params, max);
    candidates_.Weigh(scan_, max, inverse_temperature);
    if (params.typical_p < 1) {
      candidates_.KeepNearest(static_cast<float>(candidates_.MeanLogit()),
                              params.typical_p * candidates_.TotalWeight());
    }
    if (params.top_p < 1) candidates_.KeepTopP(params.top_p * candidates_.TotalWeight());
  } else if (params.typical_p < 1) {
    const TypicalDraw::Distribution of{logits, chunk_max_, max, inverse_temperature};
    typical_.Measure(of);
    if (params.top_p == 1) {
      if (const auto id = typical_.Draw(of, params.typical_p, seed, position)) return *id;
      u = UniformAt(seed, position, TypicalDraw::kMostDraws);  // the others were refused
    }
    typical_.Collect(of, params.typical_p, &candidates_);
    if (params.top_p < 1) candidates_.KeepTopP(params.top_p * candidates_.TotalWeight());
  } else if (params.top_p < 1) {
    return DrawFromTopP(logits, params.top_p, max, inverse_temperature, u);
  } else {
    return DrawFromAll(logits, max, inverse_temperature, u);
  }
  return candidates_.Pick(u);
}

int32_t Sampler::ArgMax(std::span<const float> logits, float max) const {
  const auto chunk = std::find(chunk_max_.begin(), chunk_max_.end(), max) - chunk_max_.begin();
  const auto first = logits.begin() + chunk * static_cast<std::ptrdiff_t>(kScanChunk);
  return static_cast<int32_t>(std::find(first, logits.end(), max) - logits.begin());
}

double Sampler::SumExp(std::span<const float> logits, float max, float inverse_temperature) {
  chunk_sum_.resize(NumScanChunks(logits.size()));
  scan_.ChunkSumExp(logits, max, inverse_temperature, chunk_sum_);
  double total = 0;
  for (const float sum : chunk_sum_) total += sum;
  return total;
}

int32_t Sampler::DrawFromAll(std::span<const float> logits, float max, float inverse_temperature,
                             double u) {
  const double target = u * SumExp(logits, max, inverse_temperature);
  return DrawByChunks(scan_, logits, chunk_sum_, max, inverse_temperature, target);
}

void Sampler::CollectForTopKMinP(std::span<const float> logits, const SamplingParams& params,
                                 float max) {
  float threshold = -std::numeric_limits<float>::infinity();
  if (params.min_p > 0) threshold = max + params.temperature * std::log(params.min_p);
  const auto k = static_cast<size_t>(params.top_k);
  if (k > 0 && k <= chunk_max_.size()) {
    // k chunks hold a logit at least as great as the k-th greatest chunk maximum, so the k-th
    // greatest logit is too.
    scratch_.assign(chunk_max_.begin(), chunk_max_.end());
    const auto kth = scratch_.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(scratch_.begin(), kth, scratch_.end(), std::greater<>());
    threshold = std::max(threshold, *kth);
  }
  candidates_.Clear();
  candidates_.Collect(logits, chunk_max_, threshold);
  if (k > 0) candidates_.KeepTopK(k);
}

int32_t Sampler::DrawFromTopP(std::span<const float> logits, float share, float max,
                              float inverse_temperature, double u) {
  const float head = HeadThreshold(max, inverse_temperature);
  candidates_.Clear();
  if (std::isfinite(head)) candidates_.Collect(logits, chunk_max_, head);
  candidates_.Weigh(scan_, max, inverse_temperature);
  const double head_weight = candidates_.TotalWeight();
  const SpreadNucleus::Distribution of{logits, max, inverse_temperature, head, head_weight};
  bool may_spread = logits.size() >= SpreadNucleus::kLeastLogits;
  double total = 0;  // not summed yet
  if (may_spread && head_weight < share * (head_weight + nucleus_.Sample(of))) {
    const auto drawn = nucleus_.Draw(of, share, u);
    if (drawn.id) return *drawn.id;
    total = drawn.total_weight;
    may_spread = false;
  }
  if (total == 0) total = SumExp(logits, max, inverse_temperature);
  const double mass = share * total;
  if (head_weight < mass) {
    if (may_spread) {  // the estimate that the head has the share was wrong
      if (const auto id = nucleus_.Draw(of, share, u).id) return *id;
    }
    candidates_.Clear();
    candidates_.Collect(logits, chunk_max_, std::numeric_limits<float>::lowest());
    candidates_.Weigh(scan_, max, inverse_temperature);
  }
  candidates_.KeepTopP(mass);
  return candidates_.Pick(u);
}

float Sampler::HeadThreshold(float max, float inverse_temperature) const {
  // Most distributions have nearly all within e^-6 of the likeliest.
  const size_t few = std::max<size_t>(chunk_max_.size() / 16, 16);
  for (const float depth : {6.0f, 4.0f, 2.0f}) {
    const float threshold = max - depth / inverse_temperature;
    const auto chunks = std::count_if(chunk_max_.begin(), chunk_max_.end(),
                                      [threshold](float of) { return of >= threshold; });
    if (static_cast<size_t>(chunks) <= few) return threshold;
  }
  return std::numeric_limits<float>::infinity();
}

}  // namespace quern
