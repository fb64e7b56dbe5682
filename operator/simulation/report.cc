#include "operator/simulation/report.h"

#include <iterator>

namespace quern::simulation {
namespace {

using nlohmann::json;

double Dollars(const Scenario& scenario, const RunResult& result) {
  const auto tokens = static_cast<double>(result.prompt_tokens + result.output_tokens);
  const double dollars = result.replica_hours * scenario.profile.dollars_per_hour;
  return tokens > 0 ? dollars / tokens * 1e6 : 0;
}

}  // namespace

json EntriesJson(const std::string& trace, const Scenario& scenario, const Comparison& comparison) {
  json out = json::array();
  for (const Entry& entry : comparison.entries) {
    const RunResult& r = entry.result;
    json& object = out.emplace_back(json::object());
    object["policy"] = entry.policy;
    object["trace"] = trace;
    object["attainment"] = r.attainment;
    object["replica_hours"] = r.replica_hours;
    object["start_up_seconds"] = scenario.start_up;
    object["target"] = entry.target ? json(*entry.target) : json(nullptr);
    // The bound is no run: it has no times.
    const bool ran = entry.policy != kClairvoyant;
    object["lower_bound"] = !ran;
    const auto put = [&](const char* name, auto value) {
      object[name] = ran ? json(value) : json(nullptr);
    };
    put("requests", static_cast<int64_t>(scenario.load.size()));
    put("refused", r.refused);
    put("preemptions", r.preemptions);
    put("ttft_p50", r.ttft.p50 * 1000), put("ttft_p95", r.ttft.p95 * 1000);
    put("ttft_p99", r.ttft.p99 * 1000);
    put("itl_p50", r.itl.p50 * 1000), put("itl_p95", r.itl.p95 * 1000);
    put("itl_p99", r.itl.p99 * 1000);
    put("scale_changes", r.scale_changes);
    put("peak_replicas", r.peak_replicas);
    put("utilization", r.utilization);
    put("prompt_tokens", r.prompt_tokens), put("output_tokens", r.output_tokens);
    put("dollars_per_million_tokens", Dollars(scenario, r));
  }
  return out;
}

std::string Table(const std::string& trace, const Scenario& scenario,
                  const Comparison& comparison) {
  std::string out;
  const auto add = [&out](const std::string& line) { out += line + "\n"; };
  const auto& load = scenario.load;
  add(fmt::format("{}: {} requests in {:.0f} s", trace, load.size(), load.back().at));
  add(fmt::format("replicas: {} ({}), {} to {}, ready after {:g} s", scenario.profile.name,
                  scenario.profile.measured ? "measured" : "modelled", scenario.limits.min_replicas,
                  scenario.limits.max_replicas, scenario.start_up));
  add(fmt::format(
      "objective: first token within {:g} ms, {:g} ms between tokens in a request's "
      "mean; one replica keeps it up to {:.0f} tokens/s",
      scenario.objective.ttft * 1000, scenario.objective.itl * 1000, comparison.tokens_per_second));
  add("");
  add(fmt::format("{:<12} {:>9} {:>9} {:>10} {:>22} {:>20} {:>8} {:>5} {:>8}", "policy", "target",
                  "attained", "rep.-hours", "TTFT ms p50/p95/p99", "ITL ms p50/p95/p99", "changes",
                  "peak", "$/Mtoken"));
  for (const Entry& entry : comparison.entries) {
    const RunResult& r = entry.result;
    if (entry.policy == kClairvoyant) {
      add(fmt::format("{:<12} {:>9} {:>8.2f}% {:>10.3f}  (a lower bound, not a run)", entry.policy,
                      "", r.attainment * 100, r.replica_hours));
      continue;
    }
    add(fmt::format(
        "{:<12} {:>9.4g} {:>8.2f}% {:>10.3f} {:>22} {:>20} {:>8} {:>5} {:>8.3f}", entry.policy,
        *entry.target, r.attainment * 100, r.replica_hours,
        fmt::format("{:.0f}/{:.0f}/{:.0f}", r.ttft.p50 * 1000, r.ttft.p95 * 1000,
                    r.ttft.p99 * 1000),
        fmt::format("{:.1f}/{:.1f}/{:.1f}", r.itl.p50 * 1000, r.itl.p95 * 1000, r.itl.p99 * 1000),
        r.scale_changes, r.peak_replicas, Dollars(scenario, r)));
  }
  return out;
}

}  // namespace quern::simulation
