#include "kernels/cuda/sampling/philox.cuh"
#include "tests/cuda/sampling_kernels.h"

namespace quern::kernels {

__global__ void PhiloxTestKernel(const uint4* counters, const uint2* keys, int count, uint4* out,
                                 unsigned long long* uniforms) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= count) return;
  const uint4 counter = counters[i];
  const uint2 key = keys[i];
  out[i] = Philox4x32(counter, key);
  uniforms[i] = UniformBits(static_cast<uint64_t>(key.y) << 32 | key.x,
                            static_cast<uint64_t>(counter.y) << 32 | counter.x, counter.z);
}

namespace testing {

cudaError_t RunPhilox(const uint4* counters, const uint2* keys, int count, uint4* out,
                      unsigned long long* uniforms) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1);
  config.blockDim = dim3(32);
  return cudaLaunchKernelEx(&config, PhiloxTestKernel, counters, keys, count, out, uniforms);
}

}  // namespace testing
}  // namespace quern::kernels
