#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "operator/autoscaling/decide.h"
#include "operator/autoscaling/windows.h"
#include "operator/simulation/profile.h"

namespace quern::simulation {

// A pod that is not draining, as its metrics show it.
struct PodView {
  int64_t id = 0;
  double created = 0;
  double ready_at = 0;
  bool ready = false;
  double running = 0, waiting = 0;  // requests
  double active_seconds = 0;        // requests x seconds since it was created
  control::PodCounters counters;    // since it was created
};

// What a policy may see at one of its ticks.
struct FleetView {
  double now = 0;
  int64_t desired = 0;  // as of the last decision
  std::vector<PodView> pods;
};

struct Limits {
  int64_t min_replicas = 1;  // at least 1
  int64_t max_replicas = 1;
};

// Says how many replicas there should be, every so often. Deterministic. Not thread-safe.
class Policy {
 public:
  virtual ~Policy() = default;
  virtual double period() const = 0;  // seconds between two ticks
  // Within the limits. Called at each tick in turn.
  virtual int64_t Decide(const FleetView& view) = 0;
  // What runs, and is ready, when the trace begins.
  virtual int64_t initial() const = 0;
};

// The policies that have a target which is to be chosen for a load, and what it is in.
struct PolicyKind {
  const char* name;
  const char* target;  // what the target is; "" = none
};

// In the order in which they are shown: quern, knative, hpa-tokens, hpa-queue, keda, mean-active,
// fixed.
const std::vector<PolicyKind>& PolicyKinds();

// A fresh policy of that name with a target that is above 0. Null for an unknown name.
// `spec`: quern's windows, delay and utilisation; the others have their published ones.
std::unique_ptr<Policy> MakePolicy(std::string_view name, double target, const Limits& limits,
                                   const control::ScalingPolicy& spec = {});

// As documented at their definitions.
std::unique_ptr<Policy> MakeQuern(double target_tokens_per_second, const Limits& limits,
                                  const control::ScalingPolicy& spec = {});
std::unique_ptr<Policy> MakeKnative(double concurrency, const Limits& limits);
std::unique_ptr<Policy> MakeHpaTokens(double tokens_per_second, const Limits& limits);
std::unique_ptr<Policy> MakeHpaQueue(double waiting, const Limits& limits);
std::unique_ptr<Policy> MakeKeda(double waiting, const Limits& limits);
std::unique_ptr<Policy> MakeMeanActive(double requests, const Limits& limits);
std::unique_ptr<Policy> MakeFixed(int64_t replicas);

}  // namespace quern::simulation
