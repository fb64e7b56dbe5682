#pragma once

#include <cuda_runtime.h>

#include <string>

namespace quern::kernels {

inline constexpr int kMaxCudaDevices = 64;

struct CudaDevice {
  int number;
  int multiprocessors;
  int shared_bytes;  // that a thread block can have
  int capability;    // 10 * major + minor: 80, 90
};

// The current device. "" or why there is none that can be used. Thread-safe; asks CUDA once for
// each device, as attributes do not change.
[[nodiscard]] std::string FindCudaDevice(CudaDevice* device);

// "what: message (name)". Clears the error where CUDA would give it to the next call, too.
[[nodiscard]] std::string CudaErrorText(const char* what, cudaError_t error);

}  // namespace quern::kernels
