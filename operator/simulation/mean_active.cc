// The mean of active requests over 10 minutes, looked at every 10 s, divided by a target: KubeAI's
// autoscaler (internal/modelautoscaler/autoscaler.go, the defaults of its chart: interval 10s,
// timeWindow 10m, scaleDownDelaySeconds 30). The window begins full of zeros. Up at once; down
// when three decisions before it would have gone down, too.
#include <algorithm>
#include <cmath>
#include <deque>

#include "operator/simulation/policy.h"

namespace quern::simulation {
namespace {

constexpr double kInterval = 10;
constexpr size_t kSamples = 60;  // of 10 minutes
constexpr int kDownDecisions = 3;

class MeanActive : public Policy {
 public:
  MeanActive(double requests, const Limits& limits)
      : target_(requests), limits_(limits), samples_(kSamples, 0) {}

  double period() const override { return kInterval; }
  int64_t initial() const override { return limits_.min_replicas; }

  int64_t Decide(const FleetView& view) override {
    double active = 0;
    for (const PodView& pod : view.pods) active += pod.running + pod.waiting;
    samples_.pop_front();
    samples_.push_back(active);
    double sum = 0;
    for (const double sample : samples_) sum += sample;
    const double wanted = std::ceil(sum / static_cast<double>(kSamples) / target_);
    const int64_t replicas = std::clamp(static_cast<int64_t>(std::min(wanted, 1e9)),
                                        limits_.min_replicas, limits_.max_replicas);
    if (replicas >= view.desired) {
      downs_ = 0;
      return replicas;
    }
    if (downs_ < kDownDecisions) {
      ++downs_;
      return view.desired;
    }
    return replicas;
  }

 private:
  const double target_;
  const Limits limits_;
  std::deque<double> samples_;
  int downs_ = 0;
};

}  // namespace

std::unique_ptr<Policy> MakeMeanActive(double requests, const Limits& limits) {
  return std::make_unique<MeanActive>(requests, limits);
}

}  // namespace quern::simulation
