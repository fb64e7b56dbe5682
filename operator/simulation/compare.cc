#include "operator/simulation/compare.h"

#include <algorithm>
#include <cmath>

#include "operator/simulation/calibrate.h"
#include "operator/simulation/clairvoyant.h"

namespace quern::simulation {
namespace {

// Arrivals in a policy's sweep at most, if that leaves kLeastTargets.
constexpr double kSweepArrivals = 2e6;
constexpr size_t kLeastTargets = 6;

std::vector<double> Geometric(double low, double high, double ratio) {
  std::vector<double> out = {low};
  while (out.back() < high) out.push_back(out.back() * ratio);
  return out;
}

std::optional<double> Given(const CompareOptions& options, const std::string& policy) {
  for (const auto& [name, target] : options.targets) {
    if (name == policy) return target;
  }
  return std::nullopt;
}

struct Job {
  size_t entry;
  double target;
  RunResult result;
};

// Whether `a` is the better target: enough attainment first, then replica-hours; where neither has
// enough, attainment first.
bool Better(const RunResult& a, const RunResult& b, double enough) {
  const bool a_has = a.attainment >= enough, b_has = b.attainment >= enough;
  if (a_has != b_has) return a_has;
  if (!a_has && a.attainment != b.attainment) return a.attainment > b.attainment;
  return a.replica_hours < b.replica_hours;
}

void RunAll(const Scenario& scenario, const CompareOptions& options,
            const std::vector<Entry>& entries, std::vector<Job>& jobs, std::atomic<int64_t>* done) {
  const auto run = [&](size_t i) {
    const auto policy =
        MakePolicy(entries[jobs[i].entry].policy, jobs[i].target, scenario.limits, scenario.spec);
    jobs[i].result = Simulate(scenario, *policy, nullptr, done);
  };
  if (options.for_each) return options.for_each(jobs.size(), run);
  for (size_t i = 0; i < jobs.size(); ++i) run(i);
}

}  // namespace

std::vector<double> TargetGrid(const std::string& policy, double tokens_per_second,
                               const Scenario& scenario) {
  std::vector<double> grid;
  if (policy == "fixed") {
    const Limits& limits = scenario.limits;
    const int64_t step = 1 + (limits.max_replicas - limits.min_replicas) / 100;
    for (int64_t n = limits.min_replicas; n < limits.max_replicas; n += step) {
      grid.push_back(static_cast<double>(n));
    }
    grid.push_back(static_cast<double>(limits.max_replicas));
  } else if (policy == "quern") {
    grid = {tokens_per_second};
  } else if (policy == "hpa-tokens") {
    grid = Geometric(tokens_per_second / 32, tokens_per_second * 4, 1.2);
  } else if (policy == "hpa-queue" || policy == "keda") {
    grid = Geometric(1.0 / 32, 128, 1.3);
  } else {  // knative, mean-active
    grid = Geometric(1.0 / 8, 2.0 * scenario.profile.max_sequences, 1.2);
  }
  const double room = kSweepArrivals / static_cast<double>(scenario.load.size());
  const auto most = std::max(static_cast<size_t>(room), kLeastTargets);
  if (grid.size() <= most) return grid;
  std::vector<double> thinned;
  for (size_t i = 0; i < most; ++i) thinned.push_back(grid[i * (grid.size() - 1) / (most - 1)]);
  return thinned;
}

Comparison Compare(const Scenario& scenario, const CompareOptions& options,
                   CompareProgress* progress) {
  std::atomic<int64_t>* done = progress != nullptr ? &progress->done : nullptr;
  const auto arrivals = static_cast<int64_t>(scenario.load.size());
  Comparison out;
  out.tokens_per_second = TokensPerSecondWithin(scenario);
  const double target = Given(options, "quern").value_or(out.tokens_per_second);
  Entry ours{"quern", target, {}, {}};
  if (progress != nullptr) progress->total += arrivals;
  const auto policy = MakePolicy("quern", target, scenario.limits, scenario.spec);
  ours.result = Simulate(scenario, *policy, options.traces ? &ours.trace : nullptr, done);
  out.attainment = ours.result.attainment;

  std::vector<Job> jobs;
  for (const std::string& name : options.policies) {
    Entry& entry = out.entries.emplace_back(name == "quern" ? ours : Entry{name, {}, {}, {}});
    if (name == "quern") continue;
    if (name == kClairvoyant) {
      entry.result.attainment = out.attainment;
      entry.result.replica_hours = ClairvoyantHours(scenario, out.attainment, options.bound_grid);
      continue;
    }
    const auto given = Given(options, name);
    const std::vector<double> targets =
        given ? std::vector<double>{*given} : TargetGrid(name, out.tokens_per_second, scenario);
    for (const double t : targets) jobs.push_back({out.entries.size() - 1, t, {}});
  }
  if (progress != nullptr) progress->total += arrivals * static_cast<int64_t>(jobs.size());
  RunAll(scenario, options, out.entries, jobs, done);
  for (const Job& job : jobs) {
    Entry& entry = out.entries[job.entry];
    if (entry.target && !Better(job.result, entry.result, out.attainment)) continue;
    entry.target = job.target;
    entry.result = job.result;
  }
  if (!options.traces) return out;
  for (Entry& entry : out.entries) {
    if (!entry.target || entry.policy == "quern") continue;
    const auto again = MakePolicy(entry.policy, *entry.target, scenario.limits, scenario.spec);
    Simulate(scenario, *again, &entry.trace);
  }
  return out;
}

}  // namespace quern::simulation
