// The operator's own autoscaler: Decide() every 2 s with what its scraper would see, at the
// defaults of spec.scaling (stableWindow 60s, panicWindow 10s, scaleDownDelay 5m, targetUtilization
// 0.8), or with others.
#include <algorithm>

#include "operator/autoscaling/decide.h"
#include "operator/simulation/policy.h"

namespace quern::simulation {
namespace {

constexpr double kScrapeInterval = 2;

control::Millis ToMillis(double seconds) { return static_cast<control::Millis>(seconds * 1000); }

class Quern : public Policy {
 public:
  Quern(double target, const Limits& limits, const control::ScalingPolicy& spec)
      : policy_(spec), windows_(std::max(spec.stable_window, spec.panic_window)) {
    policy_.min_replicas = limits.min_replicas;
    policy_.max_replicas = limits.max_replicas;
    policy_.target_tokens_per_second = target;
  }

  double period() const override { return kScrapeInterval; }
  int64_t initial() const override { return policy_.min_replicas; }

  int64_t Decide(const FleetView& view) override {
    const control::Millis now = ToMillis(view.now);
    control::ScalingObservation seen;
    seen.current_replicas = view.desired;
    double newest = -1;
    for (const PodView& pod : view.pods) {
      if (!pod.ready) continue;
      ++seen.expected_pods;
      ++seen.fresh_pods;
      if (pod.ready_at > 0 && pod.created > newest) {
        newest = pod.created;
        seen.ready_seconds = pod.ready_at - pod.created;
      }
      seen.running_requests += pod.running;
      seen.waiting_requests += pod.waiting;
      const std::string name = std::to_string(pod.id);
      if (const control::PodSample* last = windows_.Last(name)) {
        for (size_t f = 0; f < control::PodCounters::kFieldCount; ++f) {
          seen.recent.values[f] += pod.counters.values[f] - last->counters.values[f];
        }
      }
      control::PodSample sample;
      sample.time = now;
      sample.counters = pod.counters;
      sample.running_requests = pod.running;
      sample.waiting_requests = pod.waiting;
      windows_.Add(name, ToMillis(pod.created), sample);
    }
    windows_.Trim(now);
    seen.stable = windows_.Increase(now, policy_.stable_window);
    seen.panic = windows_.Increase(now, policy_.panic_window);
    control::ScalingDecisionResult result = control::Decide(policy_, seen, state_, now);
    state_ = std::move(result.state);
    return result.replicas;
  }

 private:
  control::ScalingPolicy policy_;
  control::PodWindows windows_;
  control::ScalingState state_;
};

}  // namespace

std::unique_ptr<Policy> MakeQuern(double target_tokens_per_second, const Limits& limits,
                                  const control::ScalingPolicy& spec) {
  return std::make_unique<Quern>(target_tokens_per_second, limits, spec);
}

}  // namespace quern::simulation
