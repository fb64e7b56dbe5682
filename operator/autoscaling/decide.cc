#include "operator/autoscaling/decide.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace quern::control {
namespace {

// What is learned fades to 1/e in this time.
constexpr double kLearningSeconds = 600;
// A request is taken to have these many tokens, with the weight of one request, before any has been
// seen.
constexpr double kPriorOutputTokens = 64;
constexpr double kPriorPromptTokens = 64;
// A mean restored from a record weighs as much as this many requests.
constexpr double kRestoredWeight = 20;
// Fewer replicas must do for this many times the demand: at the edge of n replicas' supply, noise
// would otherwise flap.
constexpr double kDownMargin = 1.1;
// The panic window decides once it needs this many times what the ready replicas supply.
constexpr double kPanicRatio = 2;
// The backlog is to be gone by the time that a replica started now is ready, within these bounds.
constexpr double kShortestHorizonSeconds = 10;
constexpr double kLongestHorizonSeconds = 300;

using Field = PodCounters::Field;

struct Demand {
  double prompt_per_second = 0;
  double requests_per_second = 0;
  double tokens_per_second = 0;  // with the backlog
};

Demand Measure(const WindowIncrease& window, Millis shortest, double backlog,
               const ScalingObservation& seen, const ScalingState& state) {
  // Until a whole window is covered, the time that is; but never less than the panic window, or the
  // first two scrapes would be a burst.
  const double seconds = std::max(window.covered_seconds, static_cast<double>(shortest) / 1000);
  const double rejected = window.increase[Field::kRejectedRequests];
  Demand demand;
  demand.prompt_per_second =
      (window.increase[Field::kAdmittedPromptTokens] + rejected * MeanPromptTokens(state)) /
      seconds;
  demand.requests_per_second = (window.increase[Field::kAdmittedRequests] + rejected) / seconds;
  const double horizon =
      std::clamp(seen.ready_seconds, kShortestHorizonSeconds, kLongestHorizonSeconds);
  demand.tokens_per_second = demand.prompt_per_second +
                             demand.requests_per_second * MeanOutputTokens(state) +
                             backlog / horizon;
  return demand;
}

void Learn(const ScalingObservation& seen, Millis now, ScalingState& state) {
  const double elapsed =
      state.started ? static_cast<double>(std::max<Millis>(now - state.last, 0)) / 1000 : 0;
  const double keep = std::exp(-elapsed / kLearningSeconds);
  const auto fade = [&](double& sum, Field field) {
    sum = sum * keep + seen.recent[field];
    if (!std::isfinite(sum)) sum = 0;  // a sum once spoilt would stay so for ever: learn anew
  };
  fade(state.learned_output_tokens, Field::kGeneratedTokens);
  fade(state.learned_finished, Field::kFinishedRequests);
  fade(state.learned_prompt_tokens, Field::kAdmittedPromptTokens);
  fade(state.learned_admitted, Field::kAdmittedRequests);
}

// Puts the need in and returns the largest within the delay. Needs fall strictly from front to
// back, so there are never more of them than max_replicas.
int64_t LargestNeed(const ScalingPolicy& policy, int64_t needed, Millis now,
                    std::vector<ScalingState::Need>& needs) {
  std::erase_if(needs, [&](const auto& need) { return need.time < now - policy.scale_down_delay; });
  while (!needs.empty() && needs.back().replicas < needed) needs.pop_back();
  if (!needs.empty() && needs.back().replicas == needed) {
    needs.back().time = now;
  } else {
    needs.push_back({now, needed});
  }
  return needs.front().replicas;
}

// `demand / per_replica` is finite.
int64_t ReplicasFor(double demand, double per_replica) {
  // A hair of tolerance, so that a demand of exactly n replicas' supply does not need n + 1.
  const double wanted = std::ceil(demand / per_replica - 1e-9);
  return static_cast<int64_t>(std::clamp(wanted, 0.0, 1e6));
}

std::string Sentence(const ScalingPolicy& policy, const ScalingObservation& seen,
                     const ScalingExplanation& e, int64_t replicas) {
  const std::string demand = fmt::format(
      "demand {:.1f} tokens/s ({:.1f} prompt + {:.2f} requests/s x {:.0f} output, backlog {:.0f} "
      "tokens) needs {} at "
      "{:.1f} tokens/s per replica",
      e.demand_tokens_per_second, e.prompt_tokens_per_second, e.requests_per_second,
      e.output_tokens_per_request, e.backlog_tokens, e.needed_replicas,
      e.tokens_per_second_per_replica);
  const std::string limit = e.limited
                                ? fmt::format("; maxReplicas {} is the limit", policy.max_replicas)
                            : e.needed_replicas < policy.min_replicas
                                ? fmt::format("; minReplicas {} is the limit", policy.min_replicas)
                                : "";
  const std::string metrics =
      fmt::format("metrics of {} of {} ready pods", seen.fresh_pods, seen.expected_pods);
  switch (e.rule) {
    case ScalingRule::kScaleUp:
      return fmt::format("{} -> {}: {}{}", seen.current_replicas, replicas, demand, limit);
    case ScalingRule::kPanic:
      return fmt::format("{} -> {}: burst over the last {} s: {}{}", seen.current_replicas,
                         replicas, policy.panic_window / 1000, demand, limit);
    case ScalingRule::kScaleDown:
      return fmt::format("{} -> {}: {}, and did for {} s", seen.current_replicas, replicas, demand,
                         policy.scale_down_delay / 1000);
    case ScalingRule::kPanicHold:
      return fmt::format("holding {}: burst seen lately; {}", replicas, demand);
    case ScalingRule::kScaleDownDelayed:
      return fmt::format("holding {}: {}, but not yet with a tenth to spare for {} s", replicas,
                         demand, policy.scale_down_delay / 1000);
    case ScalingRule::kHoldMissingMetrics:
      return fmt::format("holding {}: {} are fresh; {}", replicas, metrics, demand);
    case ScalingRule::kHoldNotReady:
      return fmt::format("holding {}: no pod is ready yet", replicas);
    case ScalingRule::kLimits:
      return fmt::format("{} -> {}: minReplicas {}, maxReplicas {}", seen.current_replicas,
                         replicas, policy.min_replicas, policy.max_replicas);
    case ScalingRule::kSteady:
      break;
  }
  return fmt::format("{} is right: {}{}", replicas, demand, limit);
}

}  // namespace

const char* RuleName(ScalingRule rule) {
  switch (rule) {
    case ScalingRule::kSteady:
      return "Steady";
    case ScalingRule::kScaleUp:
      return "ScaleUp";
    case ScalingRule::kPanic:
      return "Panic";
    case ScalingRule::kPanicHold:
      return "PanicHold";
    case ScalingRule::kScaleDownDelayed:
      return "ScaleDownDelayed";
    case ScalingRule::kScaleDown:
      return "ScaleDown";
    case ScalingRule::kHoldMissingMetrics:
      return "HoldMissingMetrics";
    case ScalingRule::kHoldNotReady:
      return "HoldNotReady";
    case ScalingRule::kLimits:
      return "Limits";
  }
  return "Unknown";
}

double MeanOutputTokens(const ScalingState& s) {
  return (s.learned_output_tokens + kPriorOutputTokens) / (s.learned_finished + 1);
}

double MeanPromptTokens(const ScalingState& s) {
  return (s.learned_prompt_tokens + kPriorPromptTokens) / (s.learned_admitted + 1);
}

ScalingState StateWithMeanOutput(double output_tokens_per_request) {
  ScalingState state;
  state.learned_finished = kRestoredWeight;
  state.learned_output_tokens =
      std::max(0.0, output_tokens_per_request * (kRestoredWeight + 1) - kPriorOutputTokens);
  return state;
}

bool ScalingObservation::operator==(const ScalingObservation& o) const {
  const auto same = [](const WindowIncrease& a, const WindowIncrease& b) {
    return a.increase.values == b.increase.values && a.covered_seconds == b.covered_seconds;
  };
  return current_replicas == o.current_replicas && expected_pods == o.expected_pods &&
         fresh_pods == o.fresh_pods && same(stable, o.stable) && same(panic, o.panic) &&
         recent.values == o.recent.values && running_requests == o.running_requests &&
         waiting_requests == o.waiting_requests && ready_seconds == o.ready_seconds;
}

ScalingDecisionResult Decide(const ScalingPolicy& policy, const ScalingObservation& seen,
                             const ScalingState& before, Millis now) {
  ScalingDecisionResult out;
  ScalingState& state = out.state = before;
  ScalingExplanation& why = out.explanation;
  Learn(seen, now, state);
  if (!state.started) {
    state.started = true;
    state.since = now;
    // Until a delay has passed, what was running counts as needed: a restart forgets no earlier
    // need.
    state.needs = {{now, seen.current_replicas}};
  }
  state.last = now;

  const double per_replica = policy.target_tokens_per_second * policy.target_utilization;
  const double backlog =
      seen.waiting_requests * (MeanPromptTokens(state) + MeanOutputTokens(state));
  const Demand stable = Measure(seen.stable, policy.panic_window, backlog, seen, state);
  const Demand panic = Measure(seen.panic, policy.panic_window, backlog, seen, state);
  const int64_t current =
      std::clamp(seen.current_replicas, policy.min_replicas, policy.max_replicas);

  const double ready_supply =
      static_cast<double>(std::max<int64_t>(seen.expected_pods, 1)) * per_replica;
  if (panic.tokens_per_second >= kPanicRatio * ready_supply)
    state.panic_until = now + policy.stable_window;
  const bool panicking = now < state.panic_until;
  const Demand& deciding =
      panicking && panic.tokens_per_second > stable.tokens_per_second ? panic : stable;

  // A demand that is no figure says nothing: as if metrics were missing.
  const bool known = std::isfinite(deciding.tokens_per_second * kDownMargin / per_replica);
  const int64_t needed =
      known ? ReplicasFor(deciding.tokens_per_second, per_replica) : seen.current_replicas;
  const int64_t wanted = std::clamp(needed, policy.min_replicas, policy.max_replicas);
  const bool all_seen = known && seen.fresh_pods >= seen.expected_pods && seen.expected_pods > 0;
  const int64_t safe = std::clamp(
      known ? ReplicasFor(deciding.tokens_per_second * kDownMargin, per_replica) : needed,
      policy.min_replicas, policy.max_replicas);
  // While metrics are missing nobody knows what is needed: what there is counts as needed.
  const int64_t largest =
      std::clamp(LargestNeed(policy, all_seen ? safe : std::max(safe, current), now, state.needs),
                 policy.min_replicas, policy.max_replicas);
  why = {ScalingRule::kSteady,
         deciding.prompt_per_second,
         deciding.requests_per_second,
         MeanOutputTokens(state),
         backlog,
         deciding.tokens_per_second,
         per_replica,
         needed,
         needed > policy.max_replicas,
         {}};
  out.replicas = current;
  if (seen.expected_pods == 0) {
    why.rule = ScalingRule::kHoldNotReady;
  } else if (wanted > current) {
    out.replicas = wanted;
    why.rule = panicking ? ScalingRule::kPanic : ScalingRule::kScaleUp;
  } else if (!all_seen) {
    why.rule = ScalingRule::kHoldMissingMetrics;
  } else if (wanted < current && panicking) {
    why.rule = ScalingRule::kPanicHold;
  } else if (wanted < current && largest >= current) {
    why.rule = ScalingRule::kScaleDownDelayed;
  } else if (wanted < current) {
    out.replicas = std::max(wanted, largest);
    why.rule = ScalingRule::kScaleDown;
  }
  if (out.replicas == current && current != seen.current_replicas) why.rule = ScalingRule::kLimits;
  why.text = Sentence(policy, seen, why, out.replicas);
  return out;
}

}  // namespace quern::control
