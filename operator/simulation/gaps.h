#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace quern::simulation {

// How long gaps between tokens were, in buckets that are 1 % wide from 1 us to some hours.
class GapHistogram {
 public:
  void Add(double seconds, double count) {
    const double place = std::log(std::max(seconds, kLeast) / kLeast) / kWidth;
    const auto bucket = std::min(static_cast<size_t>(place), kBuckets - 1);
    if (counts_.size() <= bucket) counts_.resize(bucket + 1);
    counts_[bucket] += count;
    total_ += count;
  }
  // The middle of the bucket in which the share is reached; 0 where there are no gaps.
  double Percentile(double share) const {
    if (total_ <= 0) return 0;
    double seen = 0;
    size_t bucket = 0;
    for (; bucket + 1 < counts_.size(); ++bucket) {
      seen += counts_[bucket];
      if (seen >= share * total_) break;
    }
    return kLeast * std::exp((static_cast<double>(bucket) + 0.5) * kWidth);
  }
  double total() const { return total_; }

 private:
  static constexpr double kLeast = 1e-6;
  static constexpr double kWidth = 0.00995033;  // ln 1.01
  static constexpr size_t kBuckets = 2400;
  std::vector<double> counts_;
  double total_ = 0;
};

}  // namespace quern::simulation
