#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "runtime/model/model.h"

namespace quern::testing {

// Logits [vocabulary] after each token: by sequence and position.
using AllLogits = std::map<std::pair<int, int>, std::vector<float>>;

// A step's rows, as in AllLogits.
using StepRows = std::vector<std::pair<int, int>>;

// Four sequences at a time for so many steps, teacher-forced with random tokens: they join at
// random steps, with prompts that come in chunks, decode beside each other, leave, and their blocks
// are used by the next ones. The same seed gives the same tokens, steps and blocks on every model.
// `stepped` is told each step's rows after it.
AllLogits RunTraffic(Model& model, uint64_t seed, int steps,
                     const std::function<void(const StepRows& rows)>& stepped = {});

}  // namespace quern::testing
