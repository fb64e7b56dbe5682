#include "runtime/sampling/sampler.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "runtime/sampling/chunk_draw.h"
#include "runtime/sampling/philox.h"

namespace quern {
namespace {

// What weighs less than that counts as 0 in any case (LogitScan::ChunkSumExp).
constexpr float kLeastMinP = 1e-37f;

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

  const float inverse_temperature = 1.0f / params.temperature;
  const bool cuts_by_rank = params.top_k > 0 && static_cast<size_t>(params.top_k) < logits.size();
  if (cuts_by_rank || params.min_p > kLeastMinP) {
    CollectForTopKMinP(logits, params, max);
    candidates_.Weigh(scan_, max, inverse_temperature);
    if (params.typical_p < 1) {
      candidates_.KeepNearest(static_cast<float>(candidates_.MeanLogit()),
                              params.typical_p * candidates_.TotalWeight());
    }
    if (params.top_p < 1) candidates_.KeepTopP(params.top_p * candidates_.TotalWeight());
    return candidates_.Pick(UniformAt(seed, position));
  }
  if (params.typical_p < 1 || params.top_p < 1) {
    return DrawNearest(logits, params, max, seed, position);
  }
  return DrawFromAll(logits, max, inverse_temperature, UniformAt(seed, position));
}

int32_t Sampler::DrawNearest(std::span<const float> logits, const SamplingParams& params, float max,
                             uint64_t seed, uint64_t position) {
  const NearestDraw::Distribution of{logits, chunk_max_, max, 1.0f / params.temperature};
  const bool typical = params.typical_p < 1;
  const bool both = typical && params.top_p < 1;
  const float share = typical ? params.typical_p : params.top_p;
  if (typical) {
    nearest_.MeasureAboutMean(of);
  } else {
    nearest_.MeasureAboutMax(of);
  }
  if (!both) {
    if (const auto id = nearest_.Draw(of, share, seed, position)) return *id;
  }
  nearest_.Collect(of, share, &candidates_);
  if (both) candidates_.KeepTopP(params.top_p * candidates_.TotalWeight());
  // Of draws that were refused none is used again.
  return candidates_.Pick(UniformAt(seed, position, both ? 0 : NearestDraw::kMostDraws));
}

int32_t Sampler::ArgMax(std::span<const float> logits, float max) const {
  const auto chunk = std::find(chunk_max_.begin(), chunk_max_.end(), max) - chunk_max_.begin();
  const auto first = logits.begin() + chunk * static_cast<std::ptrdiff_t>(kScanChunk);
  return static_cast<int32_t>(std::find(first, logits.end(), max) - logits.begin());
}

int32_t Sampler::DrawFromAll(std::span<const float> logits, float max, float inverse_temperature,
                             double u) {
  chunk_sum_.resize(NumScanChunks(logits.size()));
  scan_.ChunkSumExp(logits, max, inverse_temperature, chunk_sum_);
  SumThroughChunks(chunk_sum_, weight_through_);
  return DrawByChunks(scan_, logits, weight_through_, max, inverse_temperature,
                      u * weight_through_.back());
}

void Sampler::CollectForTopKMinP(std::span<const float> logits, const SamplingParams& params,
                                 float max) {
  // Where top_k cuts, the lowest number there is stands for logits that cannot be among them and
  // were not computed (ForwardBatch::logit_ranks).
  constexpr float kLowest = std::numeric_limits<float>::lowest();
  float threshold = params.top_k > 0 && max > kLowest ? std::nextafter(kLowest, 0.0f)
                                                      : -std::numeric_limits<float>::infinity();
  if (params.min_p > 0) {
    threshold = std::max(threshold, max + params.temperature * std::log(params.min_p));
  }
  const auto k = static_cast<size_t>(params.top_k);
  if (k > 0) threshold = std::max(threshold, candidates_.ReachedByTopK(chunk_max_, k));
  candidates_.Clear();
  candidates_.Collect(logits, chunk_max_, threshold);
  if (k > 0) candidates_.KeepTopK(k);
}

}  // namespace quern
