#pragma once

#include "operator/simulation/policy.h"

namespace quern::simulation {

// What a policy sees of `ready` pods with so many waiting requests each, and of `starting` ones.
// Policies look at other figures of a pod, which a test sets itself.
inline FleetView ViewOf(double now, int64_t ready, int64_t starting = 0, double waiting = 0) {
  FleetView view;
  view.now = now;
  view.desired = ready + starting;
  for (int64_t id = 0; id < ready + starting; ++id) {
    PodView pod;
    pod.id = id;
    pod.ready = id < ready;
    pod.ready_at = pod.ready ? 0 : now + 1;
    pod.waiting = pod.ready ? waiting : 0;
    view.pods.push_back(pod);
  }
  return view;
}

}  // namespace quern::simulation
