#pragma once

#include <memory>
#include <vector>

#include "runtime/backend/backend.h"

namespace quern::testing {

// The CPU's backend, which writes down how clearly experts are chosen: after a step, for each of
// its rows, how far the last logit chosen is before the next, over the deviation of the router's
// logits; the least of all layers, infinity where all experts are chosen. `gaps` outlives it.
std::unique_ptr<Backend> MakeGapBackend(std::vector<double>* gaps);

}  // namespace quern::testing
