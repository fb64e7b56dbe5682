// Knative's pod autoscaler (KPA) at the defaults of its ConfigMap config-autoscaler
// (knative/serving, pkg/autoscaler/scaling/autoscaler.go and
// config/core/configmaps/autoscaler.yaml): the concurrency of all pods over a stable window of 60 s
// and a panic window of 10 % of that, divided by 70 % of the container's concurrency target; panic
// from 200 % of what the ready pods hold on; up to 1000 times and down to half of the ready pods at
// once; every 2 s; no scale-down-delay. Concurrency is what its queue proxy counts: requests in a
// pod, waiting or running, averaged over time.
#include <algorithm>
#include <cmath>
#include <deque>
#include <map>

#include "operator/simulation/policy.h"

namespace quern::simulation {
namespace {

constexpr double kTick = 2;
constexpr double kStableWindow = 60;
constexpr double kPanicWindow = 6;
constexpr double kPanicThreshold = 2;
constexpr double kUtilization = 0.7;
constexpr double kMaxUpRate = 1000;
constexpr double kMaxDownRate = 2;

class Knative : public Policy {
 public:
  Knative(double concurrency, const Limits& limits)
      : target_(concurrency * kUtilization), limits_(limits) {}

  double period() const override { return kTick; }
  int64_t initial() const override { return limits_.min_replicas; }

  int64_t Decide(const FleetView& view) override {
    Sample(view);
    const auto ready_pods = static_cast<double>(std::max<int64_t>(
        1,
        std::count_if(view.pods.begin(), view.pods.end(), [](const auto& p) { return p.ready; })));
    const double most = std::ceil(kMaxUpRate * ready_pods);
    const double least = std::floor(ready_pods / kMaxDownRate);
    const double for_stable = std::ceil(Mean(view.now, kStableWindow) / target_);
    const double for_panic = std::ceil(Mean(view.now, kPanicWindow) / target_);
    const double stable = std::min(std::max(for_stable, least), most);
    const double panic = std::min(std::max(for_panic, least), most);
    const bool over = for_panic / ready_pods >= kPanicThreshold;
    if (over) {
      panic_since_ = view.now;
      if (!panicking_) panic_pods_ = 0;
      panicking_ = true;
    } else if (panicking_ && panic_since_ + kStableWindow < view.now) {
      panicking_ = false;
    }
    double desired = stable;
    if (panicking_) {
      // In panic mode it never goes down.
      desired = std::max(desired, panic);
      if (desired > panic_pods_) {
        panic_since_ = view.now;
        panic_pods_ = desired;
      }
      desired = panic_pods_;
    }
    return std::clamp(static_cast<int64_t>(desired), limits_.min_replicas, limits_.max_replicas);
  }

 private:
  struct Point {
    double time;
    double seconds;   // since the point before
    double requests;  // in the pods, in the mean over these
  };

  void Sample(const FleetView& view) {
    const double seconds = view.now - last_;
    double active = 0;
    std::map<int64_t, double> seen;
    for (const PodView& pod : view.pods) {
      const auto before = pods_.find(pod.id);
      active += pod.active_seconds - (before == pods_.end() ? 0 : before->second);
      seen[pod.id] = pod.active_seconds;
    }
    pods_ = std::move(seen);
    last_ = view.now;
    if (seconds > 0) points_.push_back({view.now, seconds, active / seconds});
    while (!points_.empty() && points_.front().time <= view.now - kStableWindow) {
      points_.pop_front();
    }
  }
  // Over as much of the window as there is.
  double Mean(double now, double window) const {
    double seconds = 0, sum = 0;
    for (const Point& point : points_) {
      if (point.time <= now - window) continue;
      seconds += point.seconds;
      sum += point.seconds * point.requests;
    }
    return seconds > 0 ? sum / seconds : 0;
  }

  const double target_;
  const Limits limits_;
  double last_ = 0;
  std::map<int64_t, double> pods_;
  std::deque<Point> points_;
  bool panicking_ = false;
  double panic_since_ = 0;
  double panic_pods_ = 0;
};

}  // namespace

std::unique_ptr<Policy> MakeKnative(double concurrency, const Limits& limits) {
  return std::make_unique<Knative>(concurrency, limits);
}

}  // namespace quern::simulation
