#include "tests/unit/runtime/backend/cuda/shared_memory_ranks.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <thread>
#include <vector>

#include "quern/kernels/numeric_types.h"
#include "runtime/backend/cuda/cuda_status.h"

namespace quern::testing {
namespace {

using std::chrono::steady_clock;

constexpr size_t kSlotBytes = 1 << 20;
constexpr std::chrono::seconds kRankPatience{120};

// At the beginning of the shared memory; a slot of each rank follows.
struct alignas(64) Head {
  std::atomic<int> arrived{0};
  std::atomic<int> round{0};
};

size_t BytesOf(DeviceNumber type) { return type == DeviceNumber::kF32 ? 4 : 2; }

float ToFloat(DeviceNumber type, const std::byte* at) {
  if (type == DeviceNumber::kF32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return type == DeviceNumber::kF16 ? kernels::HalfToFloat(bits) : kernels::Bf16ToFloat(bits);
}

// The nearest, of two that are as near the even one; of finite numbers.
uint16_t Bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void FromFloat(DeviceNumber type, float value, std::byte* to) {
  if (type == DeviceNumber::kF32) {
    std::memcpy(to, &value, sizeof value);
    return;
  }
  const uint16_t bits = type == DeviceNumber::kF16 ? kernels::FloatToHalf(value) : Bfloat16(value);
  std::memcpy(to, &bits, sizeof bits);
}

class SharedMemoryCommunicator : public DeviceCommunicator {
 public:
  SharedMemoryCommunicator(void* memory, int rank, int size)
      : head_(*static_cast<Head*>(memory)),
        slots_(static_cast<std::byte*>(memory) + sizeof(Head)),
        rank_(rank),
        size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  bool recordable() const override { return false; }

  Status AllReduceSum(void* values, int64_t count, DeviceNumber type,
                      CUstream_st* stream) override {
    const size_t bytes = static_cast<size_t>(count) * BytesOf(type);
    QUERN_TRY(Share(values, bytes, stream));
    std::vector<std::byte> sums(bytes);
    for (size_t at = 0; at < bytes; at += BytesOf(type)) {
      float sum = ToFloat(type, Slot(0) + at);
      for (int rank = 1; rank < size_; ++rank) sum += ToFloat(type, Slot(rank) + at);
      FromFloat(type, sum, sums.data() + at);
    }
    return Take(sums, values, stream);
  }

  Status AllGather(const void* mine, void* all, int64_t count, DeviceNumber type,
                   CUstream_st* stream) override {
    const size_t bytes = static_cast<size_t>(count) * BytesOf(type);
    QUERN_TRY(Share(mine, bytes, stream));
    std::vector<std::byte> parts;
    for (int rank = 0; rank < size_; ++rank) {
      parts.insert(parts.end(), Slot(rank), Slot(rank) + bytes);
    }
    return Take(parts, all, stream);
  }

  // Nothing that this puts on a stream waits for a rank.
  Status Await(const std::function<bool()>& done) override {
    while (!done()) std::this_thread::yield();
    return {};
  }
  void Abort() override { abort_ = true; }

 private:
  std::byte* Slot(int rank) const { return slots_ + static_cast<size_t>(rank) * kSlotBytes; }

  // From the device into this rank's slot, until all have done so.
  Status Share(const void* from, size_t bytes, CUstream_st* stream) {
    if (bytes > kSlotBytes) std::abort();
    QUERN_TRY(CudaStatus(cudaMemcpyAsync(Slot(rank_), from, bytes, cudaMemcpyDeviceToHost, stream),
                         "sharing"));
    QUERN_TRY(CudaStatus(cudaStreamSynchronize(stream), "sharing"));
    return Meet();
  }

  // To the device; the slots may be written to again.
  Status Take(const std::vector<std::byte>& from, void* to, CUstream_st* stream) {
    QUERN_TRY(CudaStatus(
        cudaMemcpyAsync(to, from.data(), from.size(), cudaMemcpyHostToDevice, stream), "taking"));
    QUERN_TRY(CudaStatus(cudaStreamSynchronize(stream), "taking"));
    return Meet();
  }

  Status Meet() {
    const int round = head_.round;
    if (++head_.arrived == size_) {
      head_.arrived = 0;
      ++head_.round;
      return {};
    }
    const auto deadline = steady_clock::now() + kRankPatience;
    while (head_.round == round) {
      if (abort_ || steady_clock::now() > deadline) {
        return MakeError(ErrorCode::kUnavailable, "rank {} of {} waits in vain for another", rank_,
                         size_);
      }
      std::this_thread::yield();
    }
    return {};
  }

  Head& head_;
  std::byte* const slots_;
  const int rank_, size_;
  std::atomic<bool> abort_{false};
};

}  // namespace

SharedMemoryRanks::SharedMemoryRanks(int size)
    : size_(size),
      memory_(mmap(nullptr, sizeof(Head) + static_cast<size_t>(size) * kSlotBytes,
                   PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {
  if (memory_ == MAP_FAILED) std::abort();
  new (memory_) Head;
}

SharedMemoryRanks::~SharedMemoryRanks() {
  munmap(memory_, sizeof(Head) + static_cast<size_t>(size_) * kSlotBytes);
}

std::unique_ptr<DeviceCommunicator> SharedMemoryRanks::Join(int rank) {
  return std::make_unique<SharedMemoryCommunicator>(memory_, rank, size_);
}

}  // namespace quern::testing
