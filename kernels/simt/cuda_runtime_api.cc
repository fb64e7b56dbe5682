#include "kernels/simt/cuda_runtime_api.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <new>
#include <string>

#include "kernels/simt/machine.h"
#include "kernels/simt/runtime/streams.h"
#include "kernels/simt/shared_memory.h"

using quern::simt::Lock;
using quern::simt::Say;
using quern::simt::Scheduler;

namespace {

constexpr int kVersion = 13000;
constexpr int kMultiprocessors = 4;
constexpr size_t kSharedPerMultiprocessor = 233472;
constexpr size_t kSharedReserved = 1024;  // of each block
constexpr size_t kSharedWithoutAsking = 48 << 10;
constexpr int kThreadsPerMultiprocessor = 2048;
constexpr int kBlocksPerMultiprocessor = 32;

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;

int Devices() {
  static const int devices = [] {
    const char* text = std::getenv("QUERN_SIMT_DEVICES");
    return text != nullptr ? std::atoi(text) : 1;
  }();
  return devices;
}

bool IsDevice(int device) { return device >= 0 && device < Devices(); }

std::map<const void*, size_t>& AllowedShared() {
  static std::map<const void*, size_t> allowed;
  return allowed;
}

size_t Allowed(const void* kernel) {
  const auto found = AllowedShared().find(kernel);
  return found == AllowedShared().end() ? kSharedWithoutAsking
                                        : std::max(found->second, kSharedWithoutAsking);
}

// What is said of each, beside its name.
struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};
#define QUERN_SIMT_ERROR(name, text) \
  ErrorText { name, #name, text }
constexpr ErrorText kErrors[] = {
    QUERN_SIMT_ERROR(cudaSuccess, "no error"),
    QUERN_SIMT_ERROR(cudaErrorInvalidValue, "an argument or the device's state is wrong"),
    QUERN_SIMT_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    QUERN_SIMT_ERROR(cudaErrorInvalidConfiguration, "an argument or the device's state is wrong"),
    QUERN_SIMT_ERROR(cudaErrorInvalidPitchValue, "a row is longer than the pitch"),
    QUERN_SIMT_ERROR(cudaErrorInvalidSymbol, "no __device__ variable"),
    QUERN_SIMT_ERROR(cudaErrorInvalidMemcpyDirection, "an argument or the device's state is wrong"),
    QUERN_SIMT_ERROR(cudaErrorInvalidDeviceFunction, "an argument or the device's state is wrong"),
    QUERN_SIMT_ERROR(cudaErrorInvalidDevice, "there is no such device"),
    QUERN_SIMT_ERROR(cudaErrorNoKernelImageForDevice, "an argument or the device's state is wrong"),
    QUERN_SIMT_ERROR(cudaErrorInvalidResourceHandle, "no such stream, event or graph"),
    QUERN_SIMT_ERROR(cudaErrorIllegalState, "not in this state"),
    QUERN_SIMT_ERROR(cudaErrorNotReady, "not done yet"),
    QUERN_SIMT_ERROR(cudaErrorLaunchFailure, "an argument or the device's state is wrong"),
    QUERN_SIMT_ERROR(cudaErrorNotPermitted, "a host function may not call the runtime"),
    QUERN_SIMT_ERROR(cudaErrorNotSupported, "the emulator does not have this"),
    QUERN_SIMT_ERROR(cudaErrorStreamCaptureUnsupported, "not allowed while a stream is captured"),
    QUERN_SIMT_ERROR(cudaErrorStreamCaptureInvalidated, "an earlier error has ended the capture"),
    QUERN_SIMT_ERROR(cudaErrorStreamCaptureMerge, "this would merge two captures"),
    QUERN_SIMT_ERROR(cudaErrorStreamCaptureUnmatched, "the capture began in another stream"),
    QUERN_SIMT_ERROR(cudaErrorStreamCaptureUnjoined,
                     "a stream that was forked in the capture has not joined it again"),
    QUERN_SIMT_ERROR(cudaErrorStreamCaptureIsolation,
                     "a captured stream cannot wait for an event that was not captured"),
    QUERN_SIMT_ERROR(cudaErrorStreamCaptureImplicit,
                     "the default stream would wait for a captured one"),
    QUERN_SIMT_ERROR(cudaErrorCapturedEvent, "the event was recorded in a capture"),
    QUERN_SIMT_ERROR(cudaErrorStreamCaptureWrongThread, "the capture began in another thread"),
    QUERN_SIMT_ERROR(cudaErrorGraphExecUpdateFailure, "the graph differs in more than parameters"),
};
#undef QUERN_SIMT_ERROR

const ErrorText* FindError(cudaError_t error) {
  const auto* found = std::find_if(std::begin(kErrors), std::end(kErrors),
                                   [error](const ErrorText& one) { return one.error == error; });
  return found == std::end(kErrors) ? nullptr : found;
}

}  // namespace

const char* cudaGetErrorName(cudaError_t error) {
  const ErrorText* found = FindError(error);
  return found == nullptr ? "cudaErrorUnknown" : found->name;
}

const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaErrorLaunchFailure) {
    // The caller may keep what it is given, while another error comes.
    static thread_local std::string text;
    const Lock lock = Scheduler::Get().Enter();
    text = Scheduler::Get().failure();
    return text.c_str();
  }
  const ErrorText* found = FindError(error);
  return found == nullptr ? "unknown error" : found->text;
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = Devices();
  return *count > 0 ? cudaSuccess : Say(cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (!IsDevice(device)) return Say(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (!IsDevice(device)) return Say(cudaErrorInvalidDevice);
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

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  static char only_pool;
  if (!IsDevice(device)) return Say(cudaErrorInvalidDevice);
  *pool = reinterpret_cast<cudaMemPool_t>(&only_pool);
  return cudaSuccess;
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t /*keep*/) {
  return pool == nullptr ? Say(cudaErrorInvalidValue) : cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!IsDevice(device)) return Say(cudaErrorInvalidDevice);
  *properties = {};
  std::strcpy(properties->name, "SIMT emulator");
  std::memcpy(properties->uuid.bytes, "an emulated GPU", 15);
  properties->uuid.bytes[15] = static_cast<char>(device);
  properties->totalGlobalMem = quern::simt::GetOptions().device_memory;
  properties->sharedMemPerBlock = kSharedWithoutAsking;
  properties->warpSize = quern::simt::kWarpLanes;
  properties->maxThreadsPerBlock = quern::simt::kMaxBlockThreads;
  constexpr int kMaxThreads[3] = {1024, 1024, 64};
  constexpr int kMaxGrid[3] = {0x7fffffff, 65535, 65535};
  std::copy_n(kMaxThreads, 3, properties->maxThreadsDim);
  std::copy_n(kMaxGrid, 3, properties->maxGridSize);
  properties->major = 9;
  properties->multiProcessorCount = kMultiprocessors;
  properties->concurrentKernels = 1;
  properties->asyncEngineCount = 2;
  properties->unifiedAddressing = 1;
  properties->maxThreadsPerMultiProcessor = kThreadsPerMultiprocessor;
  properties->sharedMemPerMultiprocessor = kSharedPerMultiprocessor;
  properties->sharedMemPerBlockOptin = quern::simt::kMaxDynamicShared;
  properties->maxBlocksPerMultiProcessor = kBlocksPerMultiprocessor;
  properties->reservedSharedMemPerBlock = kSharedReserved;
  properties->memoryPoolsSupported = 1;
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

cudaError_t Say(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
  return error;
}

namespace {

// A launch's copy of its arguments, aligned for any of them.
std::shared_ptr<void> CopyArguments(const Kernel& kernel) {
  constexpr std::align_val_t kAlignment{128};
  std::shared_ptr<void> copy(::operator new(kernel.argument_bytes, kAlignment),
                             [](void* memory) { ::operator delete(memory, kAlignment); });
  std::memcpy(copy.get(), kernel.arguments, kernel.argument_bytes);
  return copy;
}

Work LaunchOf(const Kernel& kernel, const ConfigAt& at) {
  const cudaLaunchConfig_t& config = *at.config;
  Work work;
  work.kind = Work::Kind::kKernel;
  work.name = Program::Get().FunctionName(kernel.entry);
  work.where = at.where;
  work.entry = kernel.entry;
  const std::shared_ptr<void> arguments = CopyArguments(kernel);
  Kernel launched = kernel;
  launched.arguments = arguments.get();
  const Dim3 grid{config.gridDim.x, config.gridDim.y, config.gridDim.z};
  const Dim3 block{config.blockDim.x, config.blockDim.y, config.blockDim.z};
  const size_t shared = config.dynamicSmemBytes;
  work.run = [launched, arguments, grid, block, shared](const TaskRef& task) {
    return Machine::Get().Run(launched, grid, block, shared, task).ok();
  };
  return work;
}

}  // namespace

cudaError_t LaunchChecked(const Kernel& kernel, const ConfigAt& at) {
  if (at.config->dynamicSmemBytes > Allowed(kernel.entry)) return Say(cudaErrorInvalidValue);
  return Api([&](Lock& lock) {
    TaskRef task;
    const Work work = LaunchOf(kernel, at);
    if (const cudaError_t error = Submit(at.config->stream, work, &task)) return error;
    // A kernel in the default stream runs at once, so that its error is its launch's.
    if (FindStream(at.config->stream) != &DefaultStream()) return cudaSuccess;
    Scheduler::Get().Run(task, lock);
    return Failure();
  });
}

}  // namespace quern::simt
