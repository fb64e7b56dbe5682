#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "operator/simulation/fleet.h"
#include "operator/simulation/load.h"
#include "operator/simulation/policy.h"
#include "operator/simulation/profile.h"

namespace quern::simulation {

// What a request must keep, in seconds. ITL is the mean time between its own tokens.
struct Objective {
  double ttft = 2;
  double itl = 0.1;

  bool Met(const bench::TraceRequest& request, const Outcome& outcome) const;
};

struct Scenario {
  ReplicaProfile profile;
  Load load;  // not empty
  Objective objective;
  Limits limits;
  control::ScalingPolicy spec;  // quern's windows, delay and utilisation
  double start_up = 60;         // seconds
  uint64_t seed = 1;            // of the policies' first ticks
};

struct Percentiles {
  double p50 = 0, p95 = 0, p99 = 0;
};

struct RunResult {
  double attainment = 0;  // part of the requests that kept the objective
  double replica_hours = 0;
  Percentiles ttft, itl;  // seconds; ITL over the gaps of all requests
  int64_t scale_changes = 0;
  int64_t peak_replicas = 0;  // that were asked for
  int64_t refused = 0, preemptions = 0;
  double utilization = 0;  // part of the replicas' time in which they ran steps
  int64_t prompt_tokens = 0, output_tokens = 0;  // of requests that were served
  double seconds = 0;                            // from the first arrival to the last finish
};

// What a plot needs besides.
struct RunTrace {
  std::vector<Fleet::Life> lives;
  std::vector<Outcome> outcomes;
};

// Runs the load against a policy. The first tick is at a random part of the policy's period.
// Deterministic. `trace` may be null; to `progress`, if it is not, the arrivals that are done are
// added now and then.
RunResult Simulate(const Scenario& scenario, Policy& policy, RunTrace* trace = nullptr,
                   std::atomic<int64_t>* progress = nullptr);

}  // namespace quern::simulation
