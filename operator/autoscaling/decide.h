#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "operator/autoscaling/windows.h"

namespace quern::control {

// What the endpoint asks for. Rates are tokens per second, prompt and output together.
struct ScalingPolicy {
  int64_t min_replicas = 1;
  int64_t max_replicas = 1;
  double target_tokens_per_second = 1;  // per replica
  double target_utilization = 0.8;
  Millis stable_window = 60'000;
  Millis panic_window = 10'000;
  Millis scale_down_delay = 300'000;

  bool operator==(const ScalingPolicy&) const = default;
};

// What was seen. Pods count as expected when they are ready and their metrics should be readable,
// as fresh when they have been read lately.
struct ScalingObservation {
  int64_t current_replicas = 0;  // what is asked for now
  int64_t expected_pods = 0;
  int64_t fresh_pods = 0;
  WindowIncrease stable;
  WindowIncrease panic;
  // Increases since the observation before, for what is learned.
  PodCounters recent;
  double running_requests = 0;
  double waiting_requests = 0;
  double ready_seconds = 0;  // how long a new replica takes to become ready; 0 = not measured yet

  bool operator==(const ScalingObservation& other) const;
};

// What the autoscaler carries from one decision to the next. A default-constructed one is a fresh
// start: it holds on to the replicas that are there until it has seen a whole scale-down delay.
struct ScalingState {
  bool started = false;
  Millis since = 0;         // the first decision's time
  Millis last = 0;          // the last decision's time
  Millis panic_until = -1;  // in panic mode before this
  // Sums over requests that fade with kLearningTime, for means.
  double learned_output_tokens = 0;
  double learned_finished = 0;
  double learned_prompt_tokens = 0;
  double learned_admitted = 0;
  // How many replicas were needed: times with the largest need since, times rising and needs
  // falling.
  struct Need {
    Millis time = 0;
    int64_t replicas = 0;
    bool operator==(const Need&) const = default;
  };
  std::vector<Need> needs;

  bool operator==(const ScalingState&) const = default;
};

enum class ScalingRule {
  kSteady,            // as many as needed
  kScaleUp,           // the stable window needs more
  kPanic,             // the panic window needs more, at once
  kPanicHold,         // fewer would do, but a burst was seen lately
  kScaleDownDelayed,  // fewer would do, but not for long enough yet
  kScaleDown,
  kHoldMissingMetrics,  // some or all pods' metrics are missing or stale
  kHoldNotReady,        // no pod is ready, so there is nothing to see yet
  kLimits,              // min or max moved past what there was
};

// Stable CamelCase name ("ScaleUp"), for status, metrics and records.
const char* RuleName(ScalingRule rule);

// Why: the figures that the decision was taken on.
struct ScalingExplanation {
  ScalingRule rule = ScalingRule::kSteady;
  double prompt_tokens_per_second = 0;  // arriving, over the window that decided
  double requests_per_second = 0;       // arriving, rejected ones included
  double output_tokens_per_request = 0;
  double backlog_tokens = 0;
  double demand_tokens_per_second = 0;
  double tokens_per_second_per_replica = 0;
  int64_t needed_replicas = 0;  // before delays and limits
  bool limited = false;         // max_replicas is below what is needed
  std::string text;             // one sentence for people

  bool operator==(const ScalingExplanation&) const = default;
};

struct ScalingDecisionResult {
  int64_t replicas = 0;
  ScalingState state;
  ScalingExplanation explanation;

  bool operator==(const ScalingDecisionResult&) const = default;
};

// How many replicas there should be. Pure: the same arguments give the same bits. Demand is what
// arrives (prompt tokens, and requests times the output tokens that a request is learned to take)
// and the backlog, spread over the time that a new replica takes; supply is the target per replica
// times the utilisation planned for. Up follows the stable window, or the panic window at once when
// that is twice what the ready replicas supply; down needs the whole scale-down delay without a
// need for more. Metrics that are missing never scale down. min <= replicas <= max always. (Two
// windows and their panic mode: Knative's KPA; the delay: HPA's stabilisation.)
ScalingDecisionResult Decide(const ScalingPolicy& policy, const ScalingObservation& seen,
                             const ScalingState& state, Millis now);

// The learned mean, or the prior before any request has finished.
double MeanOutputTokens(const ScalingState& state);
double MeanPromptTokens(const ScalingState& state);

// A state that has already learned a mean: for a restart, from the status.
ScalingState StateWithMeanOutput(double output_tokens_per_request);

}  // namespace quern::control
