#include "runtime/sampling/logit_adjuster.h"

#include <algorithm>
#include <cmath>

namespace quern {
namespace {

// No product of a penalty leaves float's range: an infinite logit would count as the model's fault.
constexpr float kLargest = 1e30f;

}  // namespace

bool LogitAdjuster::Needed(const SamplingParams& params) {
  return params.frequency_penalty != 0 || params.presence_penalty != 0 ||
         params.repetition_penalty != 1 || !params.logit_bias.empty();
}

LogitAdjuster::LogitAdjuster(const SamplingParams& params, std::span<const int32_t> prompt)
    : frequency_penalty_(params.frequency_penalty),
      presence_penalty_(params.presence_penalty),
      repetition_penalty_(params.repetition_penalty) {
  for (const TokenBias& entry : params.logit_bias) Entry(entry.token).bias += entry.bias;
  if (repetition_penalty_ == 1) return;
  for (const int32_t token : prompt) Entry(token).seen = true;
}

void LogitAdjuster::Count(int32_t token) {
  if (repetition_penalty_ == 1 && frequency_penalty_ == 0 && presence_penalty_ == 0) return;
  Touched& entry = Entry(token);
  entry.seen = true;
  ++entry.generated;
}

void LogitAdjuster::Apply(std::span<float> logits, std::vector<Original>& originals) const {
  for (const Touched& entry : touched_) {
    float& logit = logits[static_cast<size_t>(entry.token)];
    if (!std::isfinite(logit)) continue;
    originals.push_back({entry.token, logit});
    float changed = logit + entry.bias;
    if (entry.seen) {
      changed = changed > 0 ? changed / repetition_penalty_ : changed * repetition_penalty_;
    }
    if (entry.generated > 0) {
      changed -= frequency_penalty_ * static_cast<float>(entry.generated) + presence_penalty_;
    }
    logit = std::clamp(changed, -kLargest, kLargest);
  }
}

LogitAdjuster::Touched& LogitAdjuster::Entry(int32_t token) {
  const auto [found, is_new] = index_.try_emplace(token, touched_.size());
  if (is_new) touched_.push_back({.token = token});
  return touched_[found->second];
}

}  // namespace quern
