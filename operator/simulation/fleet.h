#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "operator/simulation/policy.h"
#include "operator/simulation/replica.h"

namespace quern::simulation {

// The pods of an endpoint and the Service before them. A request goes to the ready pod with the
// fewest requests. A new pod is ready after the start-up time. Of too many pods those go first that
// are not ready, the newest of them first; then those with the fewest requests, and of these the
// newest; they take no more requests, finish theirs, and are gone. Pods are paid for from when they
// are asked for until they are gone. Not thread-safe.
class Fleet {
 public:
  // Begins with `initial` (at least 1) ready pods.
  Fleet(const ReplicaProfile& profile, const Load& load, double start_up, int64_t initial);
  Fleet(const Fleet&) = delete;  // its pods point into it
  Fleet& operator=(const Fleet&) = delete;

  // All times rise.
  void AdvanceTo(double time);
  void Arrive(uint32_t request);
  void Resize(double time, int64_t replicas);  // at least 1
  FleetView View(double time) const;

  bool idle() const;
  int64_t desired() const { return desired_; }
  double last_finish() const;
  double ReplicaSeconds(double end) const;  // of all pods, of those that go on to `end`
  double busy_seconds() const;
  int64_t preemptions() const;
  const std::vector<Outcome>& outcomes() const { return outcomes_; }
  const GapHistogram& gaps() const { return gaps_; }

  // A pod's life, for plots. `gone` < 0: not yet.
  struct Life {
    double created, ready_at, gone;
  };
  std::vector<Life> Lives() const;

 private:
  struct Pod {
    Pod(const ReplicaProfile& profile, const Load& load, Fleet& fleet, Life life)
        : replica(profile, load, fleet.outcomes_, fleet.gaps_), life(life) {}
    SimReplica replica;
    Life life;
    int64_t id = 0;
    bool drains = false;
    bool is_ready(double time) const { return life.ready_at <= time; }
  };
  void Start(double time, double ready_at);
  void StopOne(double time);
  void Retire();

  const ReplicaProfile& profile_;
  const Load& load_;
  const double start_up_;
  double time_ = 0;
  int64_t desired_ = 0;
  std::vector<Outcome> outcomes_;
  GapHistogram gaps_;
  std::vector<std::unique_ptr<Pod>> pods_;  // that are not gone, in order of creation
  bool draining_ = false;                   // some pod drains
  int64_t next_id_ = 0;
  std::vector<Life> gone_;
  double gone_last_finish_ = 0;
  double gone_busy_ = 0;
  int64_t gone_preemptions_ = 0;
};

}  // namespace quern::simulation
