#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "runtime/model/model.h"

namespace quern::testing {

// Logits [vocabulary] after each token: by sequence and position.
using AllLogits = std::map<std::pair<int, int>, std::vector<float>>;

// Four sequences at a time for so many steps, teacher-forced with random tokens: they join at
// random steps, with prompts that come in chunks, decode beside each other, leave, and their blocks
// are used by the next ones. The same seed gives the same tokens, steps and blocks on every model.
AllLogits RunTraffic(Model& model, uint64_t seed, int steps);

}  // namespace quern::testing
