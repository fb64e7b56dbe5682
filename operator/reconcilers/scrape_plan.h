#pragma once

#include <cstddef>
#include <vector>

#include "operator/autoscaling/windows.h"

namespace quern::control {

// A pod whose metrics could be read in this round.
struct ScrapeCandidate {
  size_t endpoint = 0;        // a number of its endpoint
  Millis asked = 0;           // when the pod was last asked
  Millis endpoint_asked = 0;  // when one of its endpoint's slow pods was last asked
  double cost = 0;            // how long it is expected to take, in seconds
};

// A pod that takes longer is slow.
inline constexpr double kSlowSeconds = 0.2;

// Which candidates are asked in a round that has `budget` seconds of work (all threads together),
// by index, in the order in which they are asked. Pods are not trusted to be quick, and whatever
// some take the others must be heard: the quick ones come first, those of an endpoint that takes
// little time before those of one that takes much. The slow ones share what they leave, at least a
// quarter of the budget: one of each endpoint in turn, those left out longest first. Pure.
std::vector<size_t> PlanScrapes(const std::vector<ScrapeCandidate>& candidates, double budget);

// What a pod is expected to take after it has taken `took`: falls slowly, so that a pod that is
// quick now and then is not taken for a quick one.
double ExpectedCost(double before, double took);

}  // namespace quern::control
