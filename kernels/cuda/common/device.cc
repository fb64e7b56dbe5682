#include "kernels/cuda/common/device.h"

#include <array>
#include <atomic>

namespace quern::kernels {

std::string CudaErrorText(const char* what, cudaError_t error) {
  static_cast<void>(cudaGetLastError());
  return std::string(what) + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) +
         ")";
}

std::string FindCudaDevice(CudaDevice* device) {
  // Written in whole by whoever comes first, or twice with the same values.
  struct Known {
    std::atomic<int> multiprocessors, shared_bytes, capability;
    std::atomic<bool> all;
  };
  static std::array<Known, kMaxCudaDevices> known_devices;
  cudaError_t error = cudaGetDevice(&device->number);
  if (error != cudaSuccess) return CudaErrorText("no usable CUDA device", error);
  if (device->number >= kMaxCudaDevices) return "device numbers above 63 are not supported";
  Known& known = known_devices[static_cast<size_t>(device->number)];
  if (!known.all.load()) {
    int values[4] = {};
    constexpr cudaDeviceAttr kAttributes[4] = {
        cudaDevAttrMultiProcessorCount, cudaDevAttrMaxSharedMemoryPerBlockOptin,
        cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor};
    for (int i = 0; i < 4; ++i) {
      error = cudaDeviceGetAttribute(&values[i], kAttributes[i], device->number);
      if (error != cudaSuccess) return CudaErrorText("no usable CUDA device", error);
    }
    known.multiprocessors.store(values[0]);
    known.shared_bytes.store(values[1]);
    known.capability.store(10 * values[2] + values[3]);
    known.all.store(true);
  }
  device->multiprocessors = known.multiprocessors.load();
  device->shared_bytes = known.shared_bytes.load();
  device->capability = known.capability.load();
  return "";
}

}  // namespace quern::kernels
