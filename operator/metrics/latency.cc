#include "operator/metrics/latency.h"

#include <algorithm>
#include <cmath>

namespace quern::control {

std::optional<double> Percentile(const Buckets& buckets, double p) {
  if (buckets.empty()) return std::nullopt;
  const double total = buckets.rbegin()->second;
  if (!(total > 0)) return std::nullopt;
  const double rank = p * total;
  double lower_bound = 0;
  double below = 0;
  for (const auto& [bound, count] : buckets) {
    if (count >= rank && count > below) {
      if (std::isinf(bound)) return lower_bound;
      const double part = std::clamp((rank - below) / (count - below), 0.0, 1.0);
      return lower_bound + (bound - lower_bound) * part;
    }
    if (!std::isinf(bound)) lower_bound = bound;
    below = std::max(below, count);
  }
  return lower_bound;
}

void LatencyWindow::Add(const std::string& pod, const Buckets& current, Millis now) {
  if (current.size() > kMaxBuckets || current.empty()) return;
  const auto it = last_.find(pod);
  if (it == last_.end()) {
    if (last_.size() < PodWindows::kMaxPods) last_[pod] = current;
    return;
  }
  const bool same_bounds =
      std::equal(current.begin(), current.end(), it->second.begin(), it->second.end(),
                 [](const auto& a, const auto& b) { return a.first == b.first; });
  const bool reset = !same_bounds || current.rbegin()->second < it->second.rbegin()->second;
  if (slots_.empty() || now >= slots_.back().end) {
    const Millis width = std::max(kShortestSlot, window_ / kSlots);
    slots_.push_back({now - now % width + width, {}});
  }
  // A pod that shows other bounds each time fills the slot, but no more than that.
  Buckets& increase = slots_.back().increase;
  for (const auto& [bound, count] : current) {
    if (increase.size() >= kMaxBuckets && !increase.contains(bound)) continue;
    const double before = reset ? 0 : it->second.at(bound);
    increase[bound] += std::max(0.0, count - before);
  }
  it->second = current;
}

void LatencyWindow::Retain(const std::set<std::string>& pods) {
  std::erase_if(last_, [&](const auto& entry) { return pods.count(entry.first) == 0; });
}

void LatencyWindow::Trim(Millis now) {
  while (!slots_.empty() && slots_.front().end <= now - window_) slots_.pop_front();
}

size_t LatencyWindow::largest_slot() const {
  size_t most = 0;
  for (const Slot& slot : slots_) most = std::max(most, slot.increase.size());
  return most;
}

Buckets LatencyWindow::Sum() const {
  Buckets sum;
  for (const Slot& slot : slots_) {
    for (const auto& [bound, count] : slot.increase) {
      if (sum.size() < kMaxBuckets || sum.count(bound) > 0) sum[bound] += count;
    }
  }
  return sum;
}

}  // namespace quern::control
