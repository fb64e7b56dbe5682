#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <vector>

#include "kernels/simt/simt.h"

namespace quern::kernels::testing {

// Memory of the emulated device.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) { cudaMalloc(&data_, count * sizeof(T)); }
  explicit DeviceArray(const std::vector<T>& host) : DeviceArray(host.size()) {
    cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* data() const { return data_; }
  std::vector<T> Read() const {
    std::vector<T> host(count_);
    cudaMemcpy(host.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost);
    return host;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

// The emulator's options for the length of a scope.
class WithOptions {
 public:
  explicit WithOptions(const simt::Options& options) : before_(simt::GetOptions()) {
    simt::SetOptions(options);
  }
  explicit WithOptions(uint64_t seed) : WithOptions(simt::Options{.seed = seed}) {}
  WithOptions(const WithOptions&) = delete;
  WithOptions& operator=(const WithOptions&) = delete;
  ~WithOptions() { simt::SetOptions(before_); }

 private:
  simt::Options before_;
};

}  // namespace quern::kernels::testing
