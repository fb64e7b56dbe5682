#include "kernels/simt/cuda_runtime_api.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "kernels/simt/shared_memory.h"

namespace {

constexpr int kMultiprocessors = 4;
constexpr size_t kSharedPerMultiprocessor = 233472;
constexpr size_t kSharedReserved = 1024;  // of each block
constexpr size_t kSharedWithoutAsking = 48 << 10;
constexpr int kThreadsPerMultiprocessor = 2048;
constexpr int kBlocksPerMultiprocessor = 32;

cudaError_t last_error = cudaSuccess;
std::string last_text;

std::map<const void*, size_t>& AllowedShared() {
  static std::map<const void*, size_t> allowed;
  return allowed;
}

size_t Allowed(const void* kernel) {
  const auto found = AllowedShared().find(kernel);
  return found == AllowedShared().end() ? kSharedWithoutAsking
                                        : std::max(found->second, kSharedWithoutAsking);
}

cudaError_t Say(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

}  // namespace

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidDeviceFunction:
      return "cudaErrorInvalidDeviceFunction";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNoKernelImageForDevice:
      return "cudaErrorNoKernelImageForDevice";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
  }
  return "cudaErrorUnknown";
}

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure) return last_text.c_str();
  return error == cudaSuccess ? "no error" : "an argument or the device's state is wrong";
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return Say(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return Say(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiprocessors;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(quern::simt::kMaxDynamicShared);
      return cudaSuccess;
  }
  return Say(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = quern::simt::AllocateGlobal(bytes);
  return Say(*memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess);
}

cudaError_t cudaFree(void* memory) {
  if (memory == nullptr || quern::simt::FreeGlobal(memory)) return cudaSuccess;
  return Say(cudaErrorInvalidValue);
}

cudaError_t cudaMemset(void* memory, int byte, size_t bytes) {
  if (!quern::simt::IsGlobal(memory, bytes)) return Say(cudaErrorInvalidValue);
  std::memset(memory, byte, bytes);
  quern::simt::MarkWritten(memory, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if ((to_device && !quern::simt::IsGlobal(to, bytes)) ||
      (from_device && !quern::simt::IsGlobal(from, bytes))) {
    return Say(cudaErrorInvalidValue);
  }
  std::memcpy(to, from, bytes);
  if (to_device) quern::simt::MarkWritten(to, bytes);
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
      static_cast<size_t>(value) > quern::simt::kMaxDynamicShared) {
    return Say(cudaErrorInvalidValue);
  }
  AllowedShared()[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel,
                                                          int threads, size_t shared_bytes) {
  if (threads < 1 || threads > 1024) return Say(cudaErrorInvalidValue);
  const int by_threads = kThreadsPerMultiprocessor / ((threads + 31) / 32 * 32);
  const auto by_shared =
      static_cast<int>(kSharedPerMultiprocessor / (shared_bytes + kSharedReserved));
  *blocks = shared_bytes > Allowed(kernel)
                ? 0
                : std::min({by_threads, by_shared, kBlocksPerMultiprocessor});
  return cudaSuccess;
}

namespace quern::simt {

cudaError_t LaunchChecked(const Kernel& kernel, const cudaLaunchConfig_t& config) {
  if (config.dynamicSmemBytes > Allowed(kernel.entry)) return Say(cudaErrorInvalidValue);
  const Report report =
      Launch(kernel, {config.gridDim.x, config.gridDim.y, config.gridDim.z},
             {config.blockDim.x, config.blockDim.y, config.blockDim.z}, config.dynamicSmemBytes);
  if (report.ok()) return cudaSuccess;
  last_text = report.errors[0].text;
  return Say(cudaErrorLaunchFailure);
}

}  // namespace quern::simt
