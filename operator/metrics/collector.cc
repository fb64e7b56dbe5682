#include "operator/metrics/collector.h"

#include <algorithm>
#include <cmath>

namespace quern::control {
namespace {

using Field = PodCounters::Field;

struct Series {
  const char* name;
  Field field;
  bool needed;
};

// Counters with several series (reasons) are added up. A reason that has not occurred yet may have
// no series.
constexpr Series kCounters[] = {
    {"quern_admitted_requests_total", Field::kAdmittedRequests, true},
    {"quern_admitted_prompt_tokens_total", Field::kAdmittedPromptTokens, true},
    {"quern_requests_rejected_total", Field::kRejectedRequests, false},
    {"quern_generation_tokens_total", Field::kGeneratedTokens, true},
    {"quern_prompt_tokens_total", Field::kPrefilledTokens, true},
    {"quern_requests_finished_total", Field::kFinishedRequests, false},
};

// Whether a sample tells of tokens that are asked for. Of the refusals only those for want of
// capacity do: an idle connection that was closed, a body that was too long or a tenant at its own
// bound would need no replica more.
bool IsDemand(const MetricSample& sample) {
  if (sample.name != "quern_requests_rejected_total") return true;
  const std::string_view reason = sample.Label("reason");
  return reason == "queue_full" || reason == "admission_full";
}

// NaN, negative or infinite figures would poison every sum behind them.
double Sane(double value) {
  return std::isfinite(value) && value > 0 ? std::min(value, kMaxFigure) : 0;
}

void AddTo(double& sum, double value) { sum = std::min(sum + Sane(value), kMaxFigure); }

void AddBucket(const MetricSample& sample, Buckets& out) {
  const std::string_view le = sample.Label("le");
  double bound = 0;
  if (le == "+Inf") {
    bound = INFINITY;
  } else {
    char* end = nullptr;
    const std::string text(le);
    bound = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !(bound >= 0 && bound <= kMaxFigure)) return;
  }
  if (out.size() < LatencyWindow::kMaxBuckets || out.count(bound) > 0)
    AddTo(out[bound], sample.value);
}

bool IsFresh(const PodSample* last, Millis now, Millis stale_after) {
  return last != nullptr && now - last->time <= stale_after;
}

}  // namespace

Result<PodReading> ReadPodMetrics(std::string_view page, const MetricLimits& limits) {
  PodReading out;
  bool seen[std::size(kCounters)] = {};
  QUERN_TRY(VisitPrometheusText(page, limits, [&](const MetricSample& sample) {
    if (!sample.name.starts_with("quern_")) return;
    for (size_t i = 0; i < std::size(kCounters); ++i) {
      if (sample.name != kCounters[i].name || !IsDemand(sample)) continue;
      AddTo(out.sample.counters[kCounters[i].field], sample.value);
      seen[i] = true;
    }
    if (sample.name == "quern_requests_running") AddTo(out.sample.running_requests, sample.value);
    if (sample.name == "quern_requests_waiting") AddTo(out.sample.waiting_requests, sample.value);
    if (sample.name == "quern_kv_cache_usage_ratio") {
      out.sample.kv_cache_usage = std::max(out.sample.kv_cache_usage, Sane(sample.value));
    }
    if (sample.name == "quern_time_to_first_token_seconds_bucket")
      AddBucket(sample, out.time_to_first_token);
    if (sample.name == "quern_inter_token_latency_seconds_bucket")
      AddBucket(sample, out.inter_token_latency);
  }));
  for (size_t i = 0; i < std::size(kCounters); ++i) {
    if (kCounters[i].needed && !seen[i]) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "the page has no series {}: is this quern-serve's administrative port?",
                       kCounters[i].name);
    }
  }
  return out;
}

EndpointCollector::EndpointCollector(const ScalingPolicy& policy)
    : stable_window_(policy.stable_window),
      panic_window_(policy.panic_window),
      windows_(std::max(policy.stable_window, policy.panic_window)),
      ttft_(policy.stable_window),
      itl_(policy.stable_window) {}

void EndpointCollector::SetPolicy(const ScalingPolicy& policy) {
  stable_window_ = policy.stable_window;
  panic_window_ = policy.panic_window;
  windows_.set_keep(std::max(stable_window_, panic_window_));
  ttft_.set_window(stable_window_);
  itl_.set_window(stable_window_);
}

void EndpointCollector::Add(const ScrapedPod& pod, PodReading reading, Millis now) {
  reading.sample.time = now;
  if (const PodSample* last = windows_.Last(pod.uid)) {
    for (size_t f = 0; f < PodCounters::kFieldCount; ++f) {
      const double before = last->counters.values[f];
      const double after = reading.sample.counters.values[f];
      AddTo(pending_.values[f], after >= before ? after - before : after);
    }
  }
  windows_.Add(pod.uid, pod.started, reading.sample);
  ttft_.Add(pod.uid, reading.time_to_first_token, now);
  itl_.Add(pod.uid, reading.inter_token_latency, now);
  Trim(now);
}

void EndpointCollector::Trim(Millis now) {
  windows_.Trim(now);
  ttft_.Trim(now);
  itl_.Trim(now);
}

ScalingObservation EndpointCollector::Observe(const std::vector<ScrapedPod>& pods,
                                              int64_t current_replicas, double ready_seconds,
                                              Millis now, Millis stale_after) {
  Trim(now);
  ScalingObservation out;
  out.current_replicas = current_replicas;
  out.ready_seconds = ready_seconds;
  out.stable = windows_.Increase(now, stable_window_);
  out.panic = windows_.Increase(now, panic_window_);
  out.recent = pending_;
  pending_ = {};
  std::set<std::string> uids;
  for (const ScrapedPod& pod : pods) {
    uids.insert(pod.uid);
    const PodSample* last = windows_.Last(pod.uid);
    const bool fresh = IsFresh(last, now, stale_after);
    if (pod.ready) ++out.expected_pods;
    if (pod.ready && fresh) ++out.fresh_pods;
    if (!fresh) continue;
    AddTo(out.running_requests, last->running_requests);
    AddTo(out.waiting_requests, last->waiting_requests);
  }
  ttft_.Retain(uids);
  itl_.Retain(uids);
  return out;
}

PerformanceFigures EndpointCollector::Performance(const std::vector<ScrapedPod>& pods, Millis now,
                                                  Millis stale_after) {
  Trim(now);
  PerformanceFigures out;
  const WindowIncrease window = windows_.Increase(now, stable_window_);
  if (window.covered_seconds > 0) {
    out.tokens_per_second =
        (window.increase[Field::kGeneratedTokens] + window.increase[Field::kPrefilledTokens]) /
        window.covered_seconds;
  }
  for (const ScrapedPod& pod : pods) {
    const PodSample* last = windows_.Last(pod.uid);
    if (!IsFresh(last, now, stale_after)) continue;
    AddTo(out.running_requests, last->running_requests);
    AddTo(out.waiting_requests, last->waiting_requests);
    out.kv_cache_usage = std::max(out.kv_cache_usage.value_or(0), last->kv_cache_usage);
  }
  const Buckets ttft = ttft_.Sum();
  const Buckets itl = itl_.Sum();
  out.ttft_p50 = Percentile(ttft, 0.5);
  out.ttft_p95 = Percentile(ttft, 0.95);
  out.itl_p50 = Percentile(itl, 0.5);
  out.itl_p95 = Percentile(itl, 0.95);
  return out;
}

}  // namespace quern::control
