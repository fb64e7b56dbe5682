#pragma once

#include <random>

namespace quern::kernels::testing {

// DecodeAttention, PrefillAttention and the CPU's attention against float64.
void TestAttention(std::mt19937_64& random);

}  // namespace quern::kernels::testing
