#pragma once

#include <array>
#include <cstdint>

namespace quern {

// Philox4x32-10: a counter-based random number generator. Its output is a function of (key,
// counter) alone, with no state to carry, so a sequence draws the same numbers whatever else is in
// the batch, and again after a preemption. Salmon et al., "Parallel random numbers: as easy as 1,
// 2, 3", SC 2011.
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Uniform in [0, 1) with 53 random bits: the draw of a request with `seed` for the token at
// `position`, or one of several draws for it.
double UniformAt(uint64_t seed, uint64_t position, uint32_t draw = 0);

}  // namespace quern
