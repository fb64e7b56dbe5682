#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/simt/simt.h"

namespace quern::testing {

// How much memory the emulated device has; what it had before comes back at the end.
class DeviceLimit {
 public:
  DeviceLimit() : before_(simt::GetOptions()) {}
  ~DeviceLimit() { simt::SetOptions(before_); }
  DeviceLimit(const DeviceLimit&) = delete;
  DeviceLimit& operator=(const DeviceLimit&) = delete;

  void Set(size_t bytes) {
    simt::Options options = before_;
    options.device_memory = bytes;
    simt::SetOptions(options);
  }
  // Once all that was asked for is done.
  size_t used() const {
    size_t left = 0, total = 0;
    static_cast<void>(cudaDeviceSynchronize());
    static_cast<void>(cudaMemGetInfo(&left, &total));
    return total - left;
  }

 private:
  const simt::Options before_;
};

}  // namespace quern::testing
