#pragma once

#include <cuda_runtime.h>

namespace quern::kernels::testing {

template <typename... P, typename... A>
cudaError_t Start(void (*kernel)(P...), int blocks, int threads, size_t shared, A... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace quern::kernels::testing
