#pragma once

#include <random>

namespace quern::kernels::testing {

// RotateHeads against the CPU's reference, and what rotation does for a quantised cache.
void TestRotateHeads(std::mt19937_64& random);

}  // namespace quern::kernels::testing
