#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "operator/simulation/compare.h"

namespace quern::simulation {

// One object for each entry, as docs/scaling.md describes them: times in milliseconds. `trace`: the
// trace's name.
nlohmann::json EntriesJson(const std::string& trace, const Scenario& scenario,
                           const Comparison& comparison);

// A table for people, with a head that says what was simulated.
std::string Table(const std::string& trace, const Scenario& scenario, const Comparison& comparison);

// An SVG with a panel for each policy: arriving tokens/s and what the ready replicas can serve
// within the objective, replicas, and requests that missed it, over time. Needs RunTraces.
std::string PlotSvg(const std::string& trace, const Scenario& scenario,
                    const Comparison& comparison);

}  // namespace quern::simulation
