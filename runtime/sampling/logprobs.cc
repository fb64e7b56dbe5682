#include "runtime/sampling/logprobs.h"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "runtime/sampling/chunk_draw.h"

namespace quern {

Status LogprobReader::Measure(std::span<const float> logits) {
  assert(!logits.empty());
  chunk_max_.resize(NumScanChunks(logits.size()));
  chunk_sum_.resize(chunk_max_.size());
  if (!scan_.ChunkMax(logits, chunk_max_)) {
    return MakeError(ErrorCode::kInternal, "the model's logits are not all finite numbers");
  }
  max_ = *std::max_element(chunk_max_.begin(), chunk_max_.end());
  scan_.ChunkSumExp(logits, max_, 1.0f, chunk_sum_);
  log_sum_ = std::log(SumOfChunks(chunk_sum_));
  return {};
}

float LogprobReader::Logprob(float logit) const {
  // OpenAI's and vLLM's least; infinity is no JSON.
  constexpr double kLeast = -9999.0;
  return static_cast<float>(std::max(kLeast, double{logit} - max_ - log_sum_));
}

std::vector<TokenLogprob> LogprobReader::Top(std::span<const float> logits, size_t count) {
  std::vector<TokenLogprob> top;
  if (count == 0) return top;
  candidates_.Clear();
  candidates_.Collect(logits, chunk_max_, candidates_.ReachedByTopK(chunk_max_, count));
  candidates_.KeepTopK(count);
  const auto logit_of = [&](int32_t id) { return logits[static_cast<size_t>(id)]; };
  std::vector<int32_t> ids(candidates_.ids().begin(), candidates_.ids().end());
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return logit_of(a) > logit_of(b); });
  top.reserve(ids.size());
  for (const int32_t id : ids) top.push_back({id, Logprob(logit_of(id))});
  return top;
}

}  // namespace quern
