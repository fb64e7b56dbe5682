#pragma once

#include <cuda_runtime.h>

namespace quern::kernels::testing {

// out[i] = Philox4x32(counters[i], keys[i]), and the uniform of seed keys[i] and position
// counters[i].xy, draw counters[i].z.
cudaError_t RunPhilox(const uint4* counters, const uint2* keys, int count, uint4* out,
                      unsigned long long* uniforms);

}  // namespace quern::kernels::testing
