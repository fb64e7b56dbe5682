#pragma once

#include <random>

namespace quern::kernels::testing {

// AppendKv against float64 and the CPU's QuantizeKvHead.
void TestAppendKv(std::mt19937_64& random);

}  // namespace quern::kernels::testing
