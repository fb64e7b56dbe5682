#include "operator/autoscaling/windows.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace quern::control {

void PodWindows::Add(const std::string& pod, Millis started, const PodSample& sample) {
  const bool first_of_all = first_ < 0;
  if (first_of_all) first_ = sample.time;
  const auto it = pods_.find(pod);
  if (it == pods_.end()) {
    if (pods_.size() >= kMaxPods) return;
    Series series{sample, {}};
    if (!first_of_all && started > first_ && started < sample.time) {
      series.points = {{started, {}}, {sample.time, sample.counters}};
    } else {
      series.points = {{sample.time, {}}};
    }
    pods_.emplace(pod, std::move(series));
    return;
  }
  Series& series = it->second;
  if (sample.time <= series.last.time) return;
  Point point{sample.time, series.points.back().total};
  for (size_t f = 0; f < PodCounters::kFieldCount; ++f) {
    const double before = series.last.counters.values[f];
    const double after = sample.counters.values[f];
    point.total.values[f] += after >= before ? after - before : after;
  }
  series.last = sample;
  series.points.push_back(point);
  if (series.points.size() > kMaxSamplesPerPod) Thin(series.points);
}

// Leaves out the point whose neighbours lie closest together, of the older ones: so gaps stay even.
void PodWindows::Thin(std::deque<Point>& points) {
  size_t best = 1;
  for (size_t i = 1; i + kNewestSamples < points.size(); ++i) {
    if (points[i + 1].time - points[i - 1].time < points[best + 1].time - points[best - 1].time)
      best = i;
  }
  points.erase(points.begin() + static_cast<std::ptrdiff_t>(best));
}

void PodWindows::Trim(Millis now) {
  for (auto it = pods_.begin(); it != pods_.end();) {
    std::deque<Point>& points = it->second.points;
    // One point from before the window stays: the first pair reaches over its edge.
    while (points.size() >= 2 && points[1].time < now - keep_) points.pop_front();
    it = points.back().time < now - keep_ ? pods_.erase(it) : std::next(it);
  }
}

WindowIncrease PodWindows::Increase(Millis now, Millis window) const {
  WindowIncrease out;
  const Millis begin = now - window;
  for (const auto& [pod, series] : pods_) {
    Millis covered = 0;
    for (size_t i = 1; i < series.points.size(); ++i) {
      const Point& a = series.points[i - 1];
      const Point& b = series.points[i];
      const Millis from = std::max(a.time, begin);
      const Millis to = std::min(b.time, now);
      if (to <= from) continue;
      covered += to - from;
      const double part = static_cast<double>(to - from) / static_cast<double>(b.time - a.time);
      for (size_t f = 0; f < PodCounters::kFieldCount; ++f)
        out.increase.values[f] += part * (b.total.values[f] - a.total.values[f]);
    }
    out.covered_seconds = std::max(out.covered_seconds, static_cast<double>(covered) / 1000.0);
  }
  return out;
}

const PodSample* PodWindows::Last(const std::string& pod) const {
  const auto it = pods_.find(pod);
  return it == pods_.end() ? nullptr : &it->second.last;
}

size_t PodWindows::samples(const std::string& pod) const {
  const auto it = pods_.find(pod);
  return it == pods_.end() ? 0 : it->second.points.size();
}

}  // namespace quern::control
