#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "runtime/base/result.h"

namespace quern {

// A stream of its own, and an event; both end with what owns them.
class CudaStream {
 public:
  CudaStream() = default;
  ~CudaStream();
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  Status Create();
  cudaStream_t get() const { return stream_; }
  // Waits for all that was put on it. The first error of any of it.
  Status Synchronize(const char* what) const;

 private:
  cudaStream_t stream_ = nullptr;
};

// How a thread waits for an event: it keeps a CPU busy and goes on at once, or sleeps until the
// GPU's interrupt wakes it, which comes later.
enum class CudaWait { kSpins, kSleeps };

// For the results of steps, where a process may keep so many CPUs busy. A thread that spins takes
// one of them all the time; where there are few, and a container's quota at that, it takes the
// time of the threads that serve requests.
constexpr CudaWait WaitForSteps(double cpus) {
  return cpus < 4 ? CudaWait::kSleeps : CudaWait::kSpins;
}

class CudaEvent {
 public:
  CudaEvent() = default;
  ~CudaEvent();
  CudaEvent(CudaEvent&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
  CudaEvent& operator=(CudaEvent&&) = delete;
  // Makes the event at the first call, to be waited for as `wait` says.
  Status Record(cudaStream_t stream, CudaWait wait);
  // Returns at once where nothing was recorded.
  Status Synchronize(const char* what) const;
  // Whether it need not be waited for any more: what was recorded has ended, well or not.
  bool Done() const;

 private:
  cudaEvent_t event_ = nullptr;
};

// Memory of the device, allocated and freed in the order of a stream, which must outlive it.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  ~DeviceBuffer() { Free(); }
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  // Instead of what it had: `bytes` zeros. kResourceExhausted says how much there is; then it has
  // none.
  Status Allocate(size_t bytes, cudaStream_t stream, const char* what);
  template <typename T = void>
  T* as() const {
    return static_cast<T*>(memory_);
  }
  size_t size() const { return size_; }

 private:
  void Free();

  void* memory_ = nullptr;
  size_t size_ = 0;
  cudaStream_t stream_ = nullptr;
};

// Memory of the host that the device copies from and to by itself.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  ~PinnedBuffer() { Free(); }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;

  // At least so much from now on; what was in it may be lost. No copy may be using it.
  Status Reserve(size_t bytes, const char* what);
  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_);
  }

 private:
  void Free();

  void* memory_ = nullptr;
  size_t size_ = 0;
};

}  // namespace quern
