#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "operator/simulation/simulate.h"

namespace quern::simulation {

inline constexpr char kClairvoyant[] = "clairvoyant";

struct CompareOptions {
  std::vector<std::string> policies;  // names of PolicyKinds(), or kClairvoyant
  // Targets that are given, not searched for.
  std::vector<std::pair<std::string, double>> targets;
  // Calls a function with every number below `count`, in any order and from any threads, and
  // returns when all calls have. Not set: one after the other.
  std::function<void(size_t count, const std::function<void(size_t)>&)> for_each;
  size_t bound_grid = 2500;  // of ClairvoyantHours()
  bool traces = false;       // keep RunTraces, for plots
};

struct Entry {
  std::string policy;
  std::optional<double> target;
  RunResult result;  // of the clairvoyant: attainment and replica_hours alone
  RunTrace trace;
};

struct Comparison {
  // What one replica serves within the objective, tokens/s: quern's target.
  double tokens_per_second = 0;
  double attainment = 0;  // quern's, which the others' targets are chosen for
  std::vector<Entry> entries;
};

// Arrivals that are done, and that there are to do. Written from the threads of for_each.
struct CompareProgress {
  std::atomic<int64_t> done{0}, total{0};
};

// Runs each policy. quern has the target that TokensPerSecondWithin() finds for the load's lengths;
// each other policy the one, of a sweep over a fixed grid, that costs the fewest replica-hours of
// those with quern's attainment, or, if none has it, the one with the best attainment. The
// clairvoyant's bound is for quern's attainment. So quern runs whether it is asked for or not.
// Loads of more than about 70,000 requests have a coarser grid. Deterministic, whatever the
// threads.
Comparison Compare(const Scenario& scenario, const CompareOptions& options,
                   CompareProgress* progress = nullptr);

// The targets that are tried for a policy, rising. `tokens_per_second` as in Comparison.
std::vector<double> TargetGrid(const std::string& policy, double tokens_per_second,
                               const Scenario& scenario);

}  // namespace quern::simulation
