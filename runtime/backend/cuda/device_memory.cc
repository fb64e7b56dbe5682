#include "runtime/backend/cuda/device_memory.h"

#include <algorithm>

#include "runtime/backend/cuda/cuda_status.h"

namespace quern {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

}  // namespace

CudaStream::~CudaStream() {
  if (stream_ != nullptr) static_cast<void>(cudaStreamDestroy(stream_));
}

Status CudaStream::Create() {
  return CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
}

Status CudaStream::Synchronize(const char* what) const {
  return CudaStatus(cudaStreamSynchronize(stream_), what);
}

CudaEvent::~CudaEvent() {
  if (event_ != nullptr) static_cast<void>(cudaEventDestroy(event_));
}

Status CudaEvent::Record(cudaStream_t stream, CudaWait wait) {
  if (event_ == nullptr) {
    const unsigned flags =
        cudaEventDisableTiming | (wait == CudaWait::kSleeps ? cudaEventBlockingSync : 0);
    QUERN_TRY(CudaStatus(cudaEventCreateWithFlags(&event_, flags), "making an event"));
  }
  return CudaStatus(cudaEventRecord(event_, stream), "recording an event");
}

Status CudaEvent::Synchronize(const char* what) const {
  if (event_ == nullptr) return {};
  return CudaStatus(cudaEventSynchronize(event_), what);
}

bool CudaEvent::Done() const {
  return event_ == nullptr || cudaEventQuery(event_) != cudaErrorNotReady;
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      stream_(other.stream_) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(size_, other.size_);
  std::swap(stream_, other.stream_);
  return *this;
}

Status DeviceBuffer::Allocate(size_t bytes, cudaStream_t stream, const char* what) {
  Free();
  if (bytes == 0) return {};
  const cudaError_t error = cudaMallocAsync(&memory_, bytes, stream);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    memory_ = nullptr;
    size_t left = 0, total = 0;
    static_cast<void>(cudaMemGetInfo(&left, &total));
    return MakeError(ErrorCode::kResourceExhausted,
                     "{} needs {:.1f} MiB of the GPU's memory, but {:.1f} of its {:.1f} MiB are "
                     "left: ask for less, or take a GPU with more",
                     what, static_cast<double>(bytes) / kMiB, static_cast<double>(left) / kMiB,
                     static_cast<double>(total) / kMiB);
  }
  QUERN_TRY(CudaStatus(error, what));
  size_ = bytes;
  stream_ = stream;
  return CudaStatus(cudaMemsetAsync(memory_, 0, bytes, stream), what);
}

void DeviceBuffer::Free() {
  if (memory_ != nullptr) static_cast<void>(cudaFreeAsync(memory_, stream_));
  memory_ = nullptr;
  size_ = 0;
}

Status PinnedBuffer::Reserve(size_t bytes, const char* what) {
  if (bytes <= size_) return {};
  Free();
  QUERN_TRY(CudaStatus(cudaMallocHost(&memory_, bytes), what));
  size_ = bytes;
  return {};
}

void PinnedBuffer::Free() {
  if (memory_ != nullptr) static_cast<void>(cudaFreeHost(memory_));
  memory_ = nullptr;
  size_ = 0;
}

}  // namespace quern
