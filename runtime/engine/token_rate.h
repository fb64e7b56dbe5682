#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "runtime/base/clock.h"

namespace quern {

// Tokens per second over the last 10 s, in a ring of 100 ms buckets. Not thread-safe.
class TokenRate {
 public:
  static constexpr std::chrono::milliseconds kBucket{100};
  static constexpr size_t kBuckets = 100;

  explicit TokenRate(SteadyTime start) : start_(start), newest_(BucketOf(start)) {}

  // `now` never goes back.
  void Add(SteadyTime now, int64_t tokens);
  // In the first 10 s over the time since the start, though over no less than 1 s.
  double PerSecond(SteadyTime now);

 private:
  static int64_t BucketOf(SteadyTime time) { return time.time_since_epoch() / kBucket; }
  void Advance(SteadyTime now);

  SteadyTime start_;
  int64_t newest_;  // number of the bucket that `now` falls into
  std::array<int64_t, kBuckets> buckets_{};
  int64_t sum_ = 0;
};

}  // namespace quern
