#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "operator/autoscaling/decide.h"
#include "operator/metrics/latency.h"
#include "operator/metrics/prometheus_text.h"

namespace quern::control {

// What one page of a pod's metrics says that the operator uses.
struct PodReading {
  PodSample sample;  // time is filled in by the caller
  Buckets time_to_first_token;
  Buckets inter_token_latency;
};

// Figures of a page, and sums of them, are cut at this: far above any that is real, and far below
// where sums of many pods' end in infinity and differences in NaN.
inline constexpr double kMaxFigure = 1e15;

// Picks quern-serve's series out of a page; of the others nothing is kept. Every figure is within 0
// and kMaxFigure. Errors: kInvalidArgument naming the series that is missing (a page of something
// else, or of a runtime that does not fit this operator), and those of VisitPrometheusText.
Result<PodReading> ReadPodMetrics(std::string_view page, const MetricLimits& limits = {});

// A pod of an endpoint, as the collector is told of it before each round.
struct ScrapedPod {
  std::string uid;
  Millis started = 0;  // when its container started
  bool ready = false;
};

// Figures for people over the stable window. Empty = nothing to measure.
struct PerformanceFigures {
  std::optional<double> tokens_per_second;
  std::optional<double> kv_cache_usage;
  std::optional<double> ttft_p50, ttft_p95, itl_p50, itl_p95;
  double running_requests = 0;
  double waiting_requests = 0;
};

// The windows of one endpoint: takes readings in, gives the observation that Decide wants. Not
// thread-safe.
class EndpointCollector {
 public:
  explicit EndpointCollector(const ScalingPolicy& policy);

  void SetPolicy(const ScalingPolicy& policy);

  // One pod's reading at `now`.
  void Add(const ScrapedPod& pod, PodReading reading, Millis now);

  // What there is to see of these pods at `now`. A pod's metrics are fresh while they are at most
  // `stale_after` old. Ready pods are expected to have some. Advances what `recent` counts from.
  ScalingObservation Observe(const std::vector<ScrapedPod>& pods, int64_t current_replicas,
                             double ready_seconds, Millis now, Millis stale_after);

  PerformanceFigures Performance(const std::vector<ScrapedPod>& pods, Millis now,
                                 Millis stale_after);

 private:
  void Trim(Millis now);

  Millis stable_window_;
  Millis panic_window_;
  PodWindows windows_;
  LatencyWindow ttft_, itl_;
  PodCounters pending_;  // increases since the last Observe
};

}  // namespace quern::control
