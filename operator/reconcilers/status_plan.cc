#include "operator/reconcilers/status_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "operator/api/json.h"
#include "operator/resources/children.h"
#include "operator/resources/labels.h"

namespace quern::control {
namespace {

struct Counts {
  int64_t replicas = 0;
  int64_t ready = 0;
  int64_t updated = 0;
  bool observed = true;  // the Deployment controller has seen the last change
};

Counts CountsOf(const json& deployment) {
  Counts c;
  c.replicas = IntAt(deployment, {"status", "replicas"}).value_or(0);
  c.ready = IntAt(deployment, {"status", "readyReplicas"}).value_or(0);
  c.updated = IntAt(deployment, {"status", "updatedReplicas"}).value_or(0);
  c.observed = IntAt(deployment, {"status", "observedGeneration"}).value_or(0) >=
               IntAt(deployment, {"metadata", "generation"}).value_or(0);
  return c;
}

bool DeadlineExceeded(const json& deployment) {
  for (const json& condition : ArrayAt(deployment, {"status", "conditions"})) {
    if (StringAt(condition, {"reason"}) == "ProgressDeadlineExceeded") return true;
  }
  return false;
}

std::string Join(const std::vector<Problem>& problems) {
  std::string out;
  for (const Problem& problem : problems) out += (out.empty() ? "" : "; ") + problem.message;
  return out;
}

// Builds the conditions one after the other.
class Conditions {
 public:
  Conditions(EndpointStatus& status, int64_t generation, WallTime now)
      : status_(status), generation_(generation), now_(now) {}

  void Set(const char* type, bool value, std::string reason, std::string message) {
    SetCondition(
        status_.conditions,
        {type, value ? "True" : "False", std::move(reason), std::move(message), generation_, {}},
        now_);
  }

 private:
  EndpointStatus& status_;
  int64_t generation_;
  WallTime now_;
};

void PlanConditions(const Observed& o, int64_t desired, const Counts& total,
                    const std::vector<Problem>& problems, EndpointStatus& status) {
  Conditions conditions(status, o.endpoint.generation, o.now);
  const int64_t needed = std::min(desired, o.endpoint.scaling.min_replicas);
  const std::string figures = fmt::format("{} of {} replicas ready", total.ready, desired);
  const bool ready = total.ready >= needed && total.ready > 0;
  if (ready) {
    conditions.Set("Ready", true, "Serving", figures);
  } else if (!problems.empty()) {
    conditions.Set("Ready", false, problems[0].reason,
                   fmt::format("{}: {}", figures, problems[0].message));
  } else {
    conditions.Set("Ready", false, "Starting", figures);
  }
  conditions.Set("Available", total.ready > 0, total.ready > 0 ? "ReplicasReady" : "NoReplicaReady",
                 figures);

  const bool stuck = std::any_of(o.deployments().begin(), o.deployments().end(), DeadlineExceeded);
  const bool moving = !total.observed || o.deployments().size() != o.endpoint.hardware.size() ||
                      total.updated < desired || total.replicas != desired || total.ready < desired;
  if (stuck) {
    conditions.Set("Progressing", false, "ProgressDeadlineExceeded",
                   fmt::format("{}, and no progress for 10 minutes", figures));
  } else {
    conditions.Set("Progressing", moving, moving ? "RollingOut" : "Settled",
                   fmt::format("{}, {} of the present spec", figures, total.updated));
  }
  if (!problems.empty()) {
    conditions.Set("Degraded", true, problems[0].reason, Join(problems));
  } else {
    conditions.Set("Degraded", false, "AsExpected", "no problem is known");
  }
}

// Takes the scaler's findings over: at once when the number of replicas or what ScalingActive says
// changed, else at most every kFigureInterval.
void PlanScaling(const Observed& o, int64_t desired, StatusPlan& plan) {
  EndpointStatus& status = plan.status;
  if (!o.scaling) return;
  const auto& decision = o.scaling->decision;
  const bool changed =
      decision && (!status.last_decision || status.last_decision->replicas != decision->replicas);
  const Condition* active = FindCondition(status.conditions, "ScalingActive");
  const bool other_state = active == nullptr || active->status != o.scaling->active.status ||
                           active->reason != o.scaling->active.reason;
  const auto updated = status.performance ? ParseTime(status.performance->updated) : std::nullopt;
  const bool due = !updated || o.now - *updated >= kFigureInterval || o.now < *updated;
  if (changed) {
    const int64_t from = o.endpoint.status.desired_replicas;
    if (from > 0 && from != desired) {
      status.history.insert(status.history.begin(),
                            {FormatTime(o.now), from, desired, decision->rule, decision->message});
      if (status.history.size() > EndpointStatus::kMaxHistory)
        status.history.resize(EndpointStatus::kMaxHistory);
      plan.events.push_back({false, desired > from ? "ScaledUp" : "ScaledDown", decision->message});
    }
  }
  if (!decision) status.last_decision.reset();
  if (changed || other_state || due) {
    if (decision) status.last_decision = decision;
    status.performance = o.scaling->performance;
    status.performance->updated = FormatTime(o.now);
    Condition condition = o.scaling->active;
    condition.observed_generation = o.endpoint.generation;
    SetCondition(status.conditions, std::move(condition), o.now);
  }
}

void PlanEvents(const EndpointStatus& before, StatusPlan& plan) {
  const auto status_of = [](const EndpointStatus& status, const char* type) {
    const Condition* condition = FindCondition(status.conditions, type);
    return condition == nullptr ? Condition{} : *condition;
  };
  const Condition was_ready = status_of(before, "Ready"), ready = status_of(plan.status, "Ready");
  if (ready.status == "True" && was_ready.status != "True") {
    plan.events.push_back({false, "Ready", ready.message + ", at " + plan.status.url});
  }
  if (ready.status != "True" && was_ready.status == "True")
    plan.events.push_back({true, "NotReady", ready.message});
  const Condition was_bad = status_of(before, "Degraded"), bad = status_of(plan.status, "Degraded");
  if (bad.status == "True" && (was_bad.status != "True" || was_bad.reason != bad.reason)) {
    plan.events.push_back({true, bad.reason, bad.message});
  }
  if (bad.status == "False" && was_bad.status == "True")
    plan.events.push_back({false, "Recovered", bad.message});
}

}  // namespace

StatusPlan PlanStatus(const Observed& o, int64_t desired, const std::vector<Problem>& failures,
                      const ResourceOptions& options) {
  const InferenceEndpoint& e = o.endpoint;
  StatusPlan plan;
  plan.status = e.status;
  EndpointStatus& status = plan.status;
  status.observed_generation = e.generation;
  if (o.spec_error) {
    // Not readable (the schema lets no such spec in, but an older one may have), or not allowed.
    Conditions conditions(status, e.generation, o.now);
    conditions.Set("Ready", false, o.spec_error->reason, o.spec_error->message);
    conditions.Set("Degraded", true, o.spec_error->reason, o.spec_error->message);
    PlanEvents(e.status, plan);
    return plan;
  }
  status.url = EndpointUrl(e, options);
  status.selector = PodSelectorText(e.name);
  status.desired_replicas = desired;
  status.variants.clear();
  Counts total;
  for (const HardwareVariant& variant : e.hardware) {
    const json* deployment = o.Child(o.children.size() - 1, DeploymentName(e, variant));
    const Counts counts = deployment == nullptr ? Counts{0, 0, 0, false} : CountsOf(*deployment);
    status.variants.push_back({variant.name, counts.replicas, counts.ready});
    total.updated += counts.updated;
    total.observed = total.observed && counts.observed;
  }
  for (const json& deployment :
       o.deployments()) {  // with those of a variant that is being replaced
    const Counts counts = CountsOf(deployment);
    total.replicas += counts.replicas;
    total.ready += counts.ready;
  }
  status.replicas = total.replicas;
  status.ready_replicas = total.ready;
  std::vector<Problem> problems = failures;
  for (Problem& problem : Diagnose(o.pods, o.deployments())) problems.push_back(std::move(problem));
  PlanConditions(o, desired, total, problems, status);
  PlanScaling(o, desired, plan);
  PlanEvents(e.status, plan);
  return plan;
}

StatusPlan PlanDecision(const Observed& o, int64_t desired) {
  StatusPlan plan;
  plan.status = o.endpoint.status;
  plan.status.desired_replicas = desired;
  PlanScaling(o, desired, plan);
  return plan;
}

}  // namespace quern::control
