#include "operator/autoscaling/windows.h"

#include <algorithm>

namespace quern::control {

void PodWindows::Add(const std::string& pod, Millis started, const PodSample& sample) {
  const bool first_of_all = first_ < 0;
  if (first_of_all) first_ = sample.time;
  auto it = pods_.find(pod);
  if (it == pods_.end()) {
    if (pods_.size() >= kMaxPods) return;
    it = pods_.emplace(pod, std::deque<PodSample>()).first;
    if (!first_of_all && started > first_ && started < sample.time) {
      PodSample zero;
      zero.time = started;
      it->second.push_back(zero);
    }
  }
  std::deque<PodSample>& samples = it->second;
  if (!samples.empty() && sample.time <= samples.back().time) return;
  samples.push_back(sample);
  if (samples.size() > kMaxSamplesPerPod) samples.pop_front();
}

void PodWindows::Trim(Millis now) {
  for (auto it = pods_.begin(); it != pods_.end();) {
    std::deque<PodSample>& samples = it->second;
    // One sample from before the window stays: the first pair reaches over its edge.
    while (samples.size() >= 2 && samples[1].time < now - keep_) samples.pop_front();
    const bool stale = samples.empty() || samples.back().time < now - keep_;
    it = stale ? pods_.erase(it) : std::next(it);
  }
}

WindowIncrease PodWindows::Increase(Millis now, Millis window) const {
  WindowIncrease out;
  const Millis begin = now - window;
  for (const auto& [pod, samples] : pods_) {
    Millis covered = 0;
    for (size_t i = 1; i < samples.size(); ++i) {
      const PodSample& a = samples[i - 1];
      const PodSample& b = samples[i];
      const Millis from = std::max(a.time, begin);
      const Millis to = std::min(b.time, now);
      if (to <= from) continue;
      covered += to - from;
      const double part = static_cast<double>(to - from) / static_cast<double>(b.time - a.time);
      for (size_t f = 0; f < PodCounters::kFieldCount; ++f) {
        const double before = a.counters.values[f];
        const double after = b.counters.values[f];
        out.increase.values[f] += part * (after >= before ? after - before : after);
      }
    }
    out.covered_seconds = std::max(out.covered_seconds, static_cast<double>(covered) / 1000.0);
  }
  return out;
}

const PodSample* PodWindows::Last(const std::string& pod) const {
  const auto it = pods_.find(pod);
  return it == pods_.end() || it->second.empty() ? nullptr : &it->second.back();
}

}  // namespace quern::control
