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
// from scrape to scrape, in slots of the window's kSlots-th part, at least kShortestSlot. Bounded
// whatever the pods show: about kSlots slots of kMaxBuckets bounds, and a baseline of as many
// bounds for each of PodWindows::kMaxPods pods. Not thread-safe.
class LatencyWindow {
 public:
  static constexpr Millis kShortestSlot = 5000;
  static constexpr Millis kSlots = 120;
  static constexpr size_t kMaxBuckets = 64;  // quern-serve's histograms have 20 at most

  explicit LatencyWindow(Millis window) : window_(window) {}

  // `current`: the pod's histogram now. The first of a pod is its baseline. A count that falls is a
  // restart. A bound that a slot has no room for any more is not counted in it.
  void Add(const std::string& pod, const Buckets& current, Millis now);
  void Trim(Millis now);
  void set_window(Millis window) { window_ = window; }
  // Forgets the baselines of all pods but these; what they served stays in the window.
  void Retain(const std::set<std::string>& pods);

  // The increases within the slots that are left, as one histogram.
  Buckets Sum() const;
  size_t slots() const { return slots_.size(); }
  size_t largest_slot() const;  // its bounds

 private:
  struct Slot {
    Millis end = 0;
    Buckets increase;
  };
  Millis window_;
  std::map<std::string, Buckets> last_;
  std::deque<Slot> slots_;
};

}  // namespace quern::control
