#pragma once

#include <cstddef>

#include "operator/simulation/simulate.h"

namespace quern::simulation {

// A lower bound on the replica-hours of every policy, also of one that knows the future, that
// keeps minReplicas and serves at least `attainment` of the requests within the objective. Proof:
//
// 1. A request that keeps the objective has its prompt computed between its arrival a and a + ttft,
//    and is finished by a + ttft + itl x (tokens - 1). The steps that do this lie between. What
//    they take on account of this request is at least its work w: its terms of the step's time
//    with the longest prefix that earlier requests could have left in a cache, and its share of
//    the step itself, which no step splits over more than maxBatchTokens tokens or maxSequences
//    decodes.
// 2. So within any window of time, replicas compute for at least W, the sum of the works that must
//    be done in it; and minReplicas exist until the last arrival.
// 3. Who computes in [u, v], for u >= start-up s, has existed for s before it did, or since before
//    u - s: so within [u - s, v] it exists for s more than it computes there. At least W / (v - u)
//    replicas take part, so that within [u - s, v] replicas exist for at least W x (1 + s / (v -
//    u)).
// 4. The sum over windows that do not overlap is a bound for the whole.
// 5. M = (1 - attainment) x requests may miss the objective. Whichever these are: with min(w, t)
//    for w, for any t, leaving one out saves at most t x (1 + s / (v - u)) of its window's bound.
//    With a t for each window by which that is at most l, the sum less M x l is a bound.
// 6. All work must be done at some time.
//
// The largest of these over l, the two ways to share a step, and, by dynamic programming, the
// partition of time into windows. Replicas are taken to be divisible, and every batch to be as full
// as may be: no policy reaches it.
//
// Windows begin and end on a grid of so many steps: whatever it is, the bound is one; the finer,
// the closer. O(grid^2).
double ClairvoyantHours(const Scenario& scenario, double attainment, size_t grid = 2500);

}  // namespace quern::simulation
