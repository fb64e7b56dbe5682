#pragma once

#include "operator/simulation/simulate.h"

namespace quern::simulation {

// The tokens/s, prompt and output, up to which one replica keeps the objective for nearly all
// requests: how docs/scaling.md says to choose targetTokensPerSecond. Requests with the load's
// lengths, in its order, come at random times (Poisson) to one replica; the largest rate at which
// 95 % of them keep the objective, or of those that do when they hardly meet each other. Never 0.
double TokensPerSecondWithin(const Scenario& scenario);

}  // namespace quern::simulation
