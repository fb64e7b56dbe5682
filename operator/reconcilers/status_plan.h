#pragma once

#include <string>
#include <vector>

#include "operator/reconcilers/diagnose.h"
#include "operator/reconcilers/observe.h"
#include "operator/resources/options.h"

namespace quern::control {

// How often figures that change all the time are written.
inline constexpr std::chrono::seconds kFigureInterval{30};

// An event to be told about the endpoint.
struct PlannedEvent {
  bool warning = false;
  std::string reason;
  std::string note;

  bool operator==(const PlannedEvent&) const = default;
};

struct StatusPlan {
  EndpointStatus status;
  std::vector<PlannedEvent> events;
};

// The status that the endpoint should have, and the events for what changed since the one it has.
// Pure. Asked again with that status, it gives the same one and no events. `failures`: objects that
// could not be applied, with the API server's words.
StatusPlan PlanStatus(const Observed& observed, int64_t desired,
                      const std::vector<Problem>& failures, const ResourceOptions& options);

// Only the decision of that status: the number of replicas, how it came about, and its event. Pure.
StatusPlan PlanDecision(const Observed& observed, int64_t desired);

}  // namespace quern::control
