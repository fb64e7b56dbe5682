#include "operator/reconcilers/scaler.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "operator/api/json.h"
#include "operator/api/quantity.h"
#include "operator/api/time.h"
#include "operator/kube/object.h"
#include "operator/reconcilers/scrape_plan.h"
#include "operator/resources/children.h"

namespace quern::control {
namespace {

Millis ToMillis(std::chrono::nanoseconds time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
}

Millis WallMillis(const std::string& rfc3339) {
  const auto time = ParseTime(rfc3339);
  return time ? ToMillis(time->time_since_epoch()) : 0;
}

// A pod whose runtime has been up once (its startup probe has passed): its metrics can be read.
struct PodFacts {
  ScrapedPod pod;
  std::string name;
  std::string address;
  bool readable = false;
  double ready_seconds = 0;  // from creation to ready, of a pod that never restarted; 0 = unknown
  Millis created = 0;
};

PodFacts FactsOf(const json& pod) {
  PodFacts facts;
  facts.pod.uid = kube::ObjectUid(pod);
  facts.pod.ready = IsPodReady(pod);
  facts.name = kube::ObjectName(pod);
  facts.address = StringAt(pod, {"status", "podIP"});
  facts.created = WallMillis(StringAt(pod, {"metadata", "creationTimestamp"}));
  for (const json& container : ArrayAt(pod, {"status", "containerStatuses"})) {
    if (StringAt(container, {"name"}) != kContainerName) continue;
    facts.pod.started = WallMillis(StringAt(container, {"state", "running", "startedAt"}));
    facts.readable = !facts.address.empty() && facts.pod.started > 0 &&
                     (BoolAt(container, {"started"}) || facts.pod.ready);
    // A container that restarts has new counters; they are known by falling.
    if (IntAt(container, {"restartCount"}).value_or(0) > 0 || !facts.pod.ready) continue;
    for (const json& condition : ArrayAt(pod, {"status", "conditions"})) {
      if (StringAt(condition, {"type"}) != "Ready") continue;
      const Millis ready = WallMillis(StringAt(condition, {"lastTransitionTime"}));
      if (ready > facts.created)
        facts.ready_seconds = static_cast<double>(ready - facts.created) / 1000;
    }
  }
  return facts;
}

constexpr int kMaxTimeouts = 10;          // counted; the pause has reached its limit long before
constexpr Millis kLongestPause = 30'000;  // between two attempts at a pod that does not answer

std::string Figure(double value, int digits) { return fmt::format("{:.{}f}", value, digits); }

std::string Figure(const std::optional<double>& value, int digits) {
  return value ? Figure(*value, digits) : std::string();
}

PerformanceStatus ToStatus(const PerformanceFigures& figures) {
  PerformanceStatus out;
  out.tokens_per_second = Figure(figures.tokens_per_second, 1);
  out.kv_cache_usage = Figure(figures.kv_cache_usage, 3);
  out.time_to_first_token = {Figure(figures.ttft_p50, 3), Figure(figures.ttft_p95, 3)};
  out.inter_token_latency = {Figure(figures.itl_p50, 4), Figure(figures.itl_p95, 4)};
  out.running_requests = static_cast<int64_t>(figures.running_requests);  // <= kMaxFigure
  out.waiting_requests = static_cast<int64_t>(figures.waiting_requests);
  return out;
}

ScalingInputs ToStatus(const ScalingExplanation& why, const ScalingObservation& seen) {
  return {Figure(why.prompt_tokens_per_second, 2),
          Figure(why.requests_per_second, 3),
          Figure(why.output_tokens_per_request, 1),
          Figure(why.backlog_tokens, 0),
          Figure(why.demand_tokens_per_second, 2),
          Figure(why.tokens_per_second_per_replica, 2),
          seen.fresh_pods,
          seen.expected_pods};
}

// Why nothing is decided here in external mode, and what limits the number from outside.
void SetExternal(const InferenceEndpoint& e, Condition& active) {
  const ScalingSpec& scaling = e.scaling;
  const int64_t asked = e.external_replicas.value_or(scaling.min_replicas);
  if (asked < scaling.min_replicas || asked > scaling.max_replicas) {
    active.reason = "ExternalLimited";
    active.message = fmt::format(
        "spec.replicas is {}, outside of minReplicas {} and maxReplicas {} in spec.scaling, which "
        "limit it: there "
        "are {} replicas; give the autoscaler the same limits",
        asked, scaling.min_replicas, scaling.max_replicas,
        std::clamp(asked, scaling.min_replicas, scaling.max_replicas));
    return;
  }
  active.reason = "External";
  active.message = "spec.replicas decides, written from outside through the scale subresource";
}

}  // namespace

struct Scaler::Work {
  kube::ObjectKey key;
  Observed observed;
  std::vector<PodFacts> pods;
  std::vector<ScrapedPod> scraped;
  double ready_seconds = 0;
};

ScalingPolicy PolicyOf(const ScalingSpec& spec) {
  ScalingPolicy policy;
  policy.min_replicas = spec.min_replicas;
  policy.max_replicas = spec.max_replicas;
  policy.target_tokens_per_second = spec.target_tokens_per_second.value_or(1);
  policy.target_utilization = spec.target_utilization;
  policy.stable_window = ToMillis(spec.stable_window);
  policy.panic_window = ToMillis(spec.panic_window);
  policy.scale_down_delay = ToMillis(spec.scale_down_delay);
  return policy;
}

Scaler::Scaler(Stores stores, ScalingBoard& board, OperatorMetrics& metrics, ScalerOptions options,
               std::function<void(const kube::ObjectKey&)> enqueue, const Clock& clock,
               Scrape scrape)
    : stores_(std::move(stores)),
      board_(board),
      metrics_(metrics),
      options_(options),
      enqueue_(std::move(enqueue)),
      clock_(clock),
      scrape_(std::move(scrape)),
      wall_offset_(ToMillis(clock.WallNow().time_since_epoch()) -
                   ToMillis(clock.Now().time_since_epoch())) {}

Millis Scaler::NowMillis() const {
  return ToMillis(clock_.Now().time_since_epoch()) + wall_offset_;
}

void Scaler::Run(std::stop_token stop) {
  std::mutex mutex;
  std::condition_variable_any wake;
  while (!stop.stop_requested()) {
    const auto begin = std::chrono::steady_clock::now();
    try {
      Round(stop);
    } catch (const std::exception& error) {
      spdlog::error("a round of scaling threw: {}", error.what());
    }
    std::unique_lock lock(mutex);
    wake.wait_until(lock, stop, begin + options_.interval, [] { return false; });
  }
}

std::vector<Scaler::Work> Scaler::Collect() {
  std::vector<Work> out;
  for (const auto& object : stores_.endpoints->List()) {
    auto observed = Observe(*object, stores_, board_, clock_.WallNow());
    if (!observed || observed->spec_error || observed->endpoint.deleting()) continue;
    Work work{kube::KeyOf(*object), std::move(*observed), {}, {}, 0};
    Millis newest = -1;
    for (const json& pod : work.observed.pods) {
      if (kube::IsBeingDeleted(pod)) continue;
      PodFacts facts = FactsOf(pod);
      if (facts.ready_seconds > 0 && facts.created > newest) {
        newest = facts.created;
        work.ready_seconds = facts.ready_seconds;
      }
      work.scraped.push_back(facts.pod);
      work.pods.push_back(std::move(facts));
    }
    out.push_back(std::move(work));
  }
  return out;
}

Scaler::Endpoint& Scaler::StateOf(const Work& work) {
  const ScalingPolicy policy = PolicyOf(work.observed.endpoint.scaling);
  const auto it = endpoints_.find(work.key);
  if (it != endpoints_.end() && it->second.uid == work.observed.endpoint.uid) {
    if (!(it->second.policy == policy)) it->second.collector.SetPolicy(policy);
    it->second.policy = policy;
    return it->second;
  }
  Endpoint fresh{
      work.observed.endpoint.uid, policy, EndpointCollector(policy), {}, 0, {}, false, 0, {}, {}};
  const auto& last = work.observed.endpoint.status.last_decision;
  if (last) {
    const auto learned = ParseDecimal(last->inputs.output_tokens_per_request);
    if (learned && *learned > 0) fresh.state = StateWithMeanOutput(*learned);
  }
  return endpoints_.insert_or_assign(work.key, std::move(fresh)).first->second;
}

void Scaler::Round(std::stop_token stop) {
  std::vector<Work> work = Collect();
  std::erase_if(endpoints_, [&](const auto& entry) {
    return std::none_of(work.begin(), work.end(),
                        [&](const Work& w) { return w.key == entry.first; });
  });
  for (Work& w : work) StateOf(w).failures.clear();
  const std::vector<Target> chosen = ChooseTargets(work, NowMillis());
  std::vector<ScrapeTarget> targets;
  for (const Target& target : chosen) targets.push_back(target.scrape);
  std::vector<ScrapeResult> results = scrape_(targets, options_.scrape, stop);
  if (stop.stop_requested()) return;
  const Millis now = NowMillis();
  for (size_t t = 0; t < results.size(); ++t) {
    Take(work[chosen[t].endpoint], chosen[t].pod, std::move(results[t]), now);
  }
  for (Work& w : work) Decide(w, now);
}

std::vector<Scaler::Target> Scaler::ChooseTargets(const std::vector<Work>& work, Millis now) {
  std::vector<Target> out;
  std::map<std::string, Asked> present;
  for (size_t i = 0; i < work.size(); ++i) {
    for (size_t p = 0; p < work[i].pods.size(); ++p) {
      const PodFacts& pod = work[i].pods[p];
      if (!pod.readable) continue;
      const Asked& asked = present.try_emplace(pod.pod.uid, asked_[pod.pod.uid]).first->second;
      if (now < asked.not_before) {
        StateOf(work[i]).failures[pod.name] =
            fmt::format("{} ({} times; asked less often)", asked.why, asked.timeouts);
        continue;
      }
      out.push_back({i, p, {pod.pod.uid, pod.name, pod.address, kAdminPort}});
    }
  }
  asked_ = std::move(present);  // without the pods that are no more
  return Fitting(work, std::move(out), now);
}

// Of those whose turn it is, as many as there is time for within an interval.
std::vector<Scaler::Target> Scaler::Fitting(const std::vector<Work>& work, std::vector<Target> due,
                                            Millis now) {
  std::vector<ScrapeCandidate> candidates;
  for (const Target& target : due) {
    const Asked& asked = asked_[target.scrape.uid];
    candidates.push_back(
        {target.endpoint, asked.last, StateOf(work[target.endpoint]).slow_asked, asked.cost});
  }
  const double budget = Seconds(options_.interval).count() * options_.scrape.parallel;
  std::vector<Target> out;
  std::vector<bool> chosen(due.size(), false);
  for (const size_t i : PlanScrapes(candidates, budget)) {
    chosen[i] = true;
    if (candidates[i].cost > kSlowSeconds) StateOf(work[due[i].endpoint]).slow_asked = now;
    out.push_back(std::move(due[i]));
  }
  for (size_t i = 0; i < due.size(); ++i) {
    if (chosen[i]) continue;
    StateOf(work[due[i].endpoint]).failures[due[i].scrape.name] =
        fmt::format("pod {}: takes {:.1f} s to answer, so its turn comes less often",
                    due[i].scrape.name, candidates[i].cost);
  }
  return out;
}

void Scaler::Take(Work& work, size_t pod, ScrapeResult result, Millis now) {
  Endpoint& endpoint = StateOf(work);
  const std::string& name = work.pods[pod].name;
  if (!result.reading && result.reading.error().code == ErrorCode::kCancelled) {
    endpoint.failures[name] = result.reading.error().message;  // the round was over before its turn
    return;
  }
  metrics_.Scraped(result.reading.ok(), result.duration);
  Asked& asked = asked_[result.uid];
  asked.last = now;
  asked.cost = ExpectedCost(asked.cost, result.duration.count());
  if (result.reading) {
    asked.timeouts = 0;
    endpoint.collector.Add(work.scraped[pod], std::move(*result.reading), now);
    return;
  }
  endpoint.failures[name] = result.reading.error().message;
  if (result.reading.error().code != ErrorCode::kDeadlineExceeded) {
    asked.timeouts = 0;
    return;
  }
  // One timeout is an accident; from the second on the pause doubles.
  asked.why = result.reading.error().message;
  asked.timeouts = std::min(asked.timeouts + 1, kMaxTimeouts);
  if (asked.timeouts > 1) {
    const Millis pause = options_.interval.count() << (asked.timeouts - 1);
    asked.not_before = now + std::min<Millis>(pause, kLongestPause);
  }
}

void Scaler::Decide(Work& work, Millis now) {
  Endpoint& endpoint = StateOf(work);
  const InferenceEndpoint& e = work.observed.endpoint;
  const Millis stale = options_.stale_after.count();
  ScalingReport report;
  report.uid = e.uid;
  report.performance = ToStatus(endpoint.collector.Performance(work.scraped, now, stale));
  report.active = {"ScalingActive", "False", "", "", e.generation, {}};
  const int64_t current = DesiredReplicas(work.observed);
  const ScalingObservation seen =
      endpoint.collector.Observe(work.scraped, current, work.ready_seconds, now, stale);
  if (e.scaling.mode == ScalingSpec::Mode::kExternal) {
    SetExternal(e, report.active);
    return Publish(work, endpoint, std::move(report));
  }
  if (endpoint.policy.min_replicas == endpoint.policy.max_replicas) {
    report.active.reason = "Fixed";
    report.active.message =
        fmt::format("minReplicas and maxReplicas are both {}", endpoint.policy.min_replicas);
    return Publish(work, endpoint, std::move(report));
  }
  const ScalingDecisionResult result = control::Decide(endpoint.policy, seen, endpoint.state, now);
  endpoint.state = result.state;
  const char* rule = RuleName(result.explanation.rule);
  metrics_.Decided(rule);
  report.decision = ScalingDecision{
      FormatTime(clock_.WallNow()),      current, result.replicas, rule, result.explanation.text,
      ToStatus(result.explanation, seen)};
  if (result.explanation.rule == ScalingRule::kHoldMissingMetrics) {
    report.active.reason = "MetricsMissing";
    report.active.message = result.explanation.text;
    for (const auto& [pod, why] : endpoint.failures) {
      report.active.message += "; " + why;
      if (report.active.message.size() > 2000) break;
    }
  } else if (result.explanation.rule == ScalingRule::kHoldNotReady) {
    report.active.reason = "NoReplicaReady";
    report.active.message = result.explanation.text;
  } else {
    report.active.status = "True";
    report.active.reason = "Scaling";
    report.active.message = result.explanation.text;
  }
  Publish(work, endpoint, std::move(report));
}

void Scaler::Publish(Work& work, Endpoint& endpoint, ScalingReport report) {
  const int64_t replicas = report.decision ? report.decision->replicas : 0;
  const std::string active = report.active.status + report.active.reason;
  const bool changed = replicas != endpoint.replicas || active != endpoint.active;
  board_.Put(work.key, std::move(report));
  if (endpoint.reported && !changed) return;
  if (endpoint.reported && replicas != endpoint.replicas) {
    spdlog::info("endpoint={} replicas {} -> {}", work.key.ToString(), endpoint.replicas, replicas);
  }
  endpoint.replicas = replicas;
  endpoint.active = active;
  endpoint.reported = true;
  enqueue_(work.key);
}

}  // namespace quern::control
