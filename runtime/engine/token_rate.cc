#include "runtime/engine/token_rate.h"

#include <algorithm>

namespace quern {

void TokenRate::Add(SteadyTime now, int64_t tokens) {
  Advance(now);
  buckets_[static_cast<size_t>(newest_) % kBuckets] += tokens;
  sum_ += tokens;
}

double TokenRate::PerSecond(SteadyTime now) {
  Advance(now);
  constexpr Seconds kWindow = kBucket * kBuckets;
  const Seconds window = std::clamp(Seconds(now - start_), Seconds(1), kWindow);
  return static_cast<double>(sum_) / window.count();
}

void TokenRate::Advance(SteadyTime now) {
  const int64_t bucket = BucketOf(now);
  const int64_t steps = std::min<int64_t>(bucket - newest_, kBuckets);
  for (int64_t i = 1; i <= steps; ++i) {
    int64_t& expired = buckets_[static_cast<size_t>(newest_ + i) % kBuckets];
    sum_ -= expired;
    expired = 0;
  }
  newest_ = std::max(newest_, bucket);
}

}  // namespace quern
