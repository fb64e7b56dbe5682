#include "operator/simulation/simulate.h"

#include <algorithm>
#include <limits>

#include "runtime/bench/random.h"

namespace quern::simulation {
namespace {

constexpr size_t kProgressArrivals = 4096;  // between two additions

// Linear between the two nearest ranks. Sorts `values`.
Percentiles PercentilesOf(std::vector<double>& values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<size_t>(place);
    const size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
  };
  return {at(0.5), at(0.95), at(0.99)};
}

RunResult ResultOf(const Scenario& scenario, const Fleet& fleet) {
  RunResult out;
  std::vector<double> ttft;
  int64_t met = 0;
  for (size_t i = 0; i < scenario.load.size(); ++i) {
    const bench::TraceRequest& request = scenario.load[i];
    const Outcome& outcome = fleet.outcomes()[i];
    if (outcome.refused) {
      ++out.refused;
      continue;
    }
    ttft.push_back(outcome.first_token - request.at);
    out.prompt_tokens += request.prompt_tokens;
    out.output_tokens += request.output_tokens;
    if (scenario.objective.Met(request, outcome)) ++met;
  }
  out.attainment = static_cast<double>(met) / static_cast<double>(scenario.load.size());
  out.ttft = PercentilesOf(ttft);
  out.itl = {fleet.gaps().Percentile(0.5), fleet.gaps().Percentile(0.95),
             fleet.gaps().Percentile(0.99)};
  out.seconds = std::max(fleet.last_finish(), scenario.load.back().at);
  const double replica_seconds = fleet.ReplicaSeconds(out.seconds);
  out.replica_hours = replica_seconds / 3600;
  out.utilization = replica_seconds > 0 ? fleet.busy_seconds() / replica_seconds : 0;
  out.preemptions = fleet.preemptions();
  return out;
}

}  // namespace

bool Objective::Met(const bench::TraceRequest& request, const Outcome& outcome) const {
  if (outcome.refused || outcome.first_token - request.at > ttft) return false;
  if (request.output_tokens <= 1) return true;
  return outcome.finish - outcome.first_token <=
         itl * static_cast<double>(request.output_tokens - 1);
}

RunResult Simulate(const Scenario& scenario, Policy& policy, RunTrace* trace,
                   std::atomic<int64_t>* progress) {
  const Load& load = scenario.load;
  Fleet fleet(scenario.profile, load, scenario.start_up, policy.initial());
  double tick = bench::Random(scenario.seed).Unit() * policy.period();
  int64_t changes = 0, peak = fleet.desired();
  size_t next = 0;
  while (next < load.size() || !fleet.idle()) {
    const double arrival =
        next < load.size() ? load[next].at : std::numeric_limits<double>::infinity();
    if (arrival <= tick) {
      fleet.AdvanceTo(arrival);
      fleet.Arrive(static_cast<uint32_t>(next++));
      if (progress != nullptr && next % kProgressArrivals == 0) *progress += kProgressArrivals;
      continue;
    }
    fleet.AdvanceTo(tick);
    if (next == load.size() && fleet.idle()) break;  // all was over before this tick
    const int64_t replicas = policy.Decide(fleet.View(tick));
    changes += replicas != fleet.desired();
    peak = std::max(peak, replicas);
    fleet.Resize(tick, replicas);
    tick += policy.period();
  }
  if (progress != nullptr) *progress += static_cast<int64_t>(next % kProgressArrivals);
  RunResult out = ResultOf(scenario, fleet);
  out.scale_changes = changes;
  out.peak_replicas = peak;
  if (trace != nullptr) *trace = {fleet.Lives(), fleet.outcomes()};
  return out;
}

}  // namespace quern::simulation
