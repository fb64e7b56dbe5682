// Kubernetes' HorizontalPodAutoscaler, autoscaling/v2, at the defaults of kube-controller-manager
// (pkg/controller/podautoscaler: horizontal.go, replica_calculator.go; the documentation page
// "Horizontal Pod Autoscaling"): every 15 s, a tolerance of 10 %, down by the largest
// recommendation of the last 300 s; up by the larger of 4 pods and 100 % in 15 s, down by 100 % in
// 15 s. The metric is either one of the pods (type Pods), where a pod without a figure counts as
// one at the target when that goes down and as one at 0 when that goes up; or one from outside
// (type External, with an AverageValue), which knows no pods.
#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <map>
#include <optional>

#include "operator/simulation/policy.h"

namespace quern::simulation {
namespace {

constexpr double kSync = 15;
constexpr double kTolerance = 0.1;
constexpr double kDownStabilization = 300;
constexpr double kPolicyPeriod = 15;
constexpr int64_t kUpPods = 4;

bool WithinTolerance(double ratio) { return 1 - kTolerance <= ratio && ratio <= 1 + kTolerance; }

// What a metric of the pods asks for. `values`: of the pods that have one; `missing`: how many have
// none.
int64_t ReplicasForPods(const std::vector<double>& values, int64_t missing, double target,
                        int64_t current) {
  if (values.empty()) return current;
  double sum = 0;
  for (const double value : values) sum += value;
  const auto count = static_cast<double>(values.size());
  const double ratio = sum / count / target;
  if (missing == 0) {
    return WithinTolerance(ratio) ? current : static_cast<int64_t>(std::ceil(ratio * count));
  }
  const auto all = count + static_cast<double>(missing);
  if (ratio < 1) sum += static_cast<double>(missing) * target;
  const double careful = sum / all / target;
  const bool turned = (ratio < 1 && careful > 1) || (ratio > 1 && careful < 1);
  if (WithinTolerance(careful) || turned) return current;
  const auto wanted = static_cast<int64_t>(std::ceil(careful * all));
  const bool contrary = (careful < 1 && wanted > current) || (careful > 1 && wanted < current);
  return contrary ? current : wanted;
}

// What a metric from outside asks for, with an AverageValue.
int64_t ReplicasForExternal(double value, double target, int64_t current) {
  const double ratio = value / (target * static_cast<double>(current));
  return WithinTolerance(ratio) ? current : static_cast<int64_t>(std::ceil(value / target));
}

// The behaviour that both share: stabilisation, limits of the rate, limits of the number.
class Behaviour {
 public:
  explicit Behaviour(const Limits& limits) : limits_(limits) {}

  int64_t Apply(double now, int64_t current, int64_t wanted) {
    std::erase_if(wanted_, [&](const auto& w) { return w.first <= now - kDownStabilization; });
    if (!begun_) wanted_.emplace_back(now, current);  // what it finds counts as wanted
    begun_ = true;
    int64_t down = wanted;
    for (const auto& [time, replicas] : wanted_) down = std::max(down, replicas);
    wanted_.emplace_back(now, wanted);
    const int64_t stable = std::min(std::max(current, wanted), down);

    std::erase_if(changes_, [&](const auto& c) { return c.first <= now - kPolicyPeriod; });
    int64_t began = current;
    for (const auto& [time, change] : changes_) began -= change;
    int64_t next = stable;
    if (stable > current) {
      const int64_t limit = std::max({began + kUpPods, 2 * began, current});
      next = std::min({stable, limit, limits_.max_replicas});
    } else if (stable < current) {
      next = std::max(stable, limits_.min_replicas);  // 100 % of them may go
    }
    next = std::clamp(next, limits_.min_replicas, limits_.max_replicas);
    if (next != current) changes_.emplace_back(now, next - current);
    return next;
  }

 private:
  const Limits limits_;
  bool begun_ = false;
  std::deque<std::pair<double, int64_t>> wanted_;
  std::deque<std::pair<double, int64_t>> changes_;
};

class HpaOfPods : public Policy {
 public:
  // A pod's figure, or none: what it tells in `now`'s sync period.
  using Figure = std::function<std::optional<double>(const PodView& pod, double now)>;
  HpaOfPods(double target, const Limits& limits, Figure figure)
      : target_(target), limits_(limits), figure_(std::move(figure)), behaviour_(limits) {}

  double period() const override { return kSync; }
  int64_t initial() const override { return limits_.min_replicas; }
  int64_t Decide(const FleetView& view) override {
    std::vector<double> values;
    int64_t missing = 0;
    for (const PodView& pod : view.pods) {
      const auto value = pod.ready ? figure_(pod, view.now) : std::nullopt;
      if (value) {
        values.push_back(*value);
      } else {
        ++missing;
      }
    }
    return behaviour_.Apply(view.now, view.desired,
                            ReplicasForPods(values, missing, target_, view.desired));
  }

 private:
  const double target_;
  const Limits limits_;
  const Figure figure_;
  Behaviour behaviour_;
};

// Tokens/s that pods serve, prompt and output, over the last minute or as long as they are ready:
// rate(...[1m]) as a metrics adapter gives it.
class TokenRates {
 public:
  std::optional<double> operator()(const PodView& pod, double now) {
    std::deque<Point>& points = pods_[pod.id];
    const double tokens = pod.counters[control::PodCounters::kGeneratedTokens] +
                          pod.counters[control::PodCounters::kPrefilledTokens];
    if (points.empty()) points.push_back({std::max(pod.ready_at, 0.0), 0});
    if (now <= points.back().time) return std::nullopt;
    points.push_back({now, tokens});
    while (points.size() > 2 && points[1].time <= now - kWindow) points.pop_front();
    return (tokens - points.front().tokens) / (now - points.front().time);
  }

 private:
  static constexpr double kWindow = 60;
  struct Point {
    double time, tokens;
  };
  std::map<int64_t, std::deque<Point>> pods_;
};

// KEDA's ScaledObject with a trigger on waiting requests: the operator gives the HPA behind it an
// external metric with an AverageValue of the threshold. Its poll of 30 s and its cooldown of 300 s
// are for the steps from and to zero, which do not occur here (minReplicas is at least 1).
class Keda : public Policy {
 public:
  Keda(double waiting, const Limits& limits)
      : target_(waiting), limits_(limits), behaviour_(limits) {}
  double period() const override { return kSync; }
  int64_t initial() const override { return limits_.min_replicas; }
  int64_t Decide(const FleetView& view) override {
    double waiting = 0;
    for (const PodView& pod : view.pods) waiting += pod.waiting;
    return behaviour_.Apply(view.now, view.desired,
                            ReplicasForExternal(waiting, target_, view.desired));
  }

 private:
  const double target_;
  const Limits limits_;
  Behaviour behaviour_;
};

}  // namespace

std::unique_ptr<Policy> MakeHpaTokens(double tokens_per_second, const Limits& limits) {
  return std::make_unique<HpaOfPods>(tokens_per_second, limits, TokenRates());
}

std::unique_ptr<Policy> MakeHpaQueue(double waiting, const Limits& limits) {
  return std::make_unique<HpaOfPods>(
      waiting, limits,
      [](const PodView& pod, double) -> std::optional<double> { return pod.waiting; });
}

std::unique_ptr<Policy> MakeKeda(double waiting, const Limits& limits) {
  return std::make_unique<Keda>(waiting, limits);
}

}  // namespace quern::simulation
