#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "operator/autoscaling/windows.h"

namespace quern::control {

// A cumulative histogram as Prometheus shows it: upper bound (seconds; +Inf too) -> count of
// observations up to it.
using Buckets = std::map<double, double>;

// The percentile `p` (0..1) of a histogram, by linear interpolation within the bucket, as PromQL's
// histogram_quantile has it; the last finite bound when it lies above all of them. Empty without
// observations.
std::optional<double> Percentile(const Buckets& buckets, double p);

// Latencies of all pods of an endpoint over a window: what each pod's cumulative histogram rose by
// from scrape to scrape, in slots of kSlot. Bounded by window / kSlot slots and kMaxBuckets bounds.
// Not thread-safe.
class LatencyWindow {
 public:
  static constexpr Millis kSlot = 5000;
  static constexpr size_t kMaxBuckets = 128;

  // `current`: the pod's histogram now. The first of a pod is its baseline. A count that falls is a
  // restart.
  void Add(const std::string& pod, const Buckets& current, Millis now);
  void Trim(Millis now, Millis window);
  // Forgets the baselines of all pods but these; what they served stays in the window.
  void Retain(const std::set<std::string>& pods);

  // The increases within the slots that are left, as one histogram.
  Buckets Sum() const;

 private:
  struct Slot {
    Millis begin = 0;
    Buckets increase;
  };
  std::map<std::string, Buckets> last_;
  std::deque<Slot> slots_;
};

}  // namespace quern::control
