#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "kernels/simt/simt.h"

namespace quern::testing {

// How much memory the emulated device has; what it had before comes back at the end. Meanwhile it
// takes work in the order in which it was asked for, so that a test knows who finds a fault.
class DeviceLimit {
 public:
  DeviceLimit() : before_(simt::GetOptions()) {
    Set(before_.device_memory);
    used_ = all_used();
  }
  ~DeviceLimit() { simt::SetOptions(before_); }
  DeviceLimit(const DeviceLimit&) = delete;
  DeviceLimit& operator=(const DeviceLimit&) = delete;

  void Set(size_t bytes) {
    simt::Options options = before_;
    options.device_memory = bytes;
    options.seed = 0;
    simt::SetOptions(options);
  }
  // Since the beginning, once all that was asked for is done.
  size_t used() const { return all_used() - used_; }
  // No more than is used now.
  void Close() { Set(all_used()); }

 private:
  static size_t all_used() {
    size_t left = 0, total = 0;
    static_cast<void>(cudaDeviceSynchronize());
    static_cast<void>(cudaMemGetInfo(&left, &total));
    return total - left;
  }

  const simt::Options before_;
  size_t used_ = 0;
};

}  // namespace quern::testing
