// libnccl.so.2 of the emulator: NCCL's C interface (NVIDIA's documentation, "NCCL API"), as far as
// the runtime opens it, between the emulated devices of processes on one machine. It is loaded into
// a program that has the emulator, whose symbols it uses. What it does and what it does not:
// docs/simt.md.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "kernels/simt/nccl/shared_ranks.h"
#include "kernels/simt/outside_work.h"
#include "quern/kernels/numeric_types.h"

namespace {

using quern::simt::kMostRanks;
using quern::simt::kSlotBytes;
using quern::simt::OutsideWork;
using quern::simt::SharedRanks;

enum Result {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kInProgress = 7,
};
enum Type { kFloat16 = 6, kFloat32 = 7, kBfloat16 = 9 };

struct UniqueId {
  SharedRanks::Place place;
  char rest[128 - sizeof(SharedRanks::Place)];
};

// The beginning of ncclConfig_t, which every version has.
struct Config {
  size_t size;
  unsigned magic;
  unsigned version;
  int blocking;
};
constexpr unsigned kConfigMagic = 0xcafebeef;

// Of NCCL's own threads to end.
constexpr std::chrono::milliseconds kAbortTime{50};

thread_local std::string last_error;

Result Fail(Result result, std::string why) {
  last_error = std::move(why);
  return result;
}

// What a test has go wrong in this process: "init", "silent" or "sum"; "" else.
std::string_view Fault() {
  const char* fault = std::getenv("QUERN_SIMT_NCCL_FAULT");
  return fault != nullptr ? fault : "";
}

size_t BytesOf(int type) { return type == kFloat32 ? 4 : 2; }

float ToFloat(int type, const std::byte* at) {
  if (type == kFloat32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return type == kFloat16 ? quern::kernels::HalfToFloat(bits) : quern::kernels::Bf16ToFloat(bits);
}

// The nearest, of two that are as near the even one; NaN stays one.
uint16_t ToBfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void FromFloat(int type, float value, std::byte* to) {
  if (type == kFloat32) {
    std::memcpy(to, &value, sizeof value);
    return;
  }
  const uint16_t bits = type == kFloat16 ? quern::kernels::FloatToHalf(value) : ToBfloat16(value);
  std::memcpy(to, &bits, sizeof bits);
}

// What a communicator's work in streams has of it, which may be left when it is gone.
struct Exchange {
  std::shared_ptr<SharedRanks> shared;
  int rank = 0;
  int size = 0;
  uint64_t given = 0;  // exchanges of this rank so far, as those of SharedRanks::Rank
  uint64_t taken = 0;
  std::atomic<bool> aborted{false};
  // Work that is recorded has a reference to it each: while a graph has, the communicator stays.
  std::shared_ptr<void> recorded = std::make_shared<char>();

  bool AllHave(std::atomic<uint64_t> SharedRanks::Rank::*count, uint64_t least) const {
    for (int other = 0; other < size; ++other) {
      if ((shared->rank(other).*count).load(std::memory_order_acquire) < least) return false;
    }
    return true;
  }
};
using ExchangeRef = std::shared_ptr<Exchange>;

// What work that is put in the stream now is to hold.
std::shared_ptr<void> HeldBy(cudaStream_t stream, const Exchange& exchange) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cudaStreamIsCapturing(stream, &status);
  return status == cudaStreamCaptureStatusNone ? nullptr : exchange.recorded;
}

// This rank's slot gets `bytes` of the device's, once everybody has what the last exchange was for.
OutsideWork Give(const char* name, const ExchangeRef& exchange, const std::shared_ptr<void>& held,
                 const void* from, size_t bytes) {
  return {.name = name,
          .may_begin =
              [exchange] {
                return exchange->aborted ||
                       exchange->AllHave(&SharedRanks::Rank::taken, exchange->given);
              },
          .reads = {{from, bytes}},
          .writes = {},
          .run =
              [exchange, held, from, bytes] {
                if (exchange->aborted) return;
                std::memcpy(exchange->shared->slot(exchange->rank), from, bytes);
                exchange->shared->rank(exchange->rank)
                    .given.store(++exchange->given, std::memory_order_release);
              }};
}

// `run` has all ranks' slots.
OutsideWork Take(const char* name, const ExchangeRef& exchange, const std::shared_ptr<void>& held,
                 std::vector<quern::simt::Range> writes, std::function<void(SharedRanks&)> run) {
  return {.name = name,
          .may_begin =
              [exchange] {
                return exchange->aborted ||
                       exchange->AllHave(&SharedRanks::Rank::given, exchange->taken + 1);
              },
          .reads = {},
          .writes = std::move(writes),
          .run =
              [exchange, held, run = std::move(run)] {
                if (exchange->aborted) return;
                run(*exchange->shared);
                exchange->shared->rank(exchange->rank)
                    .taken.store(++exchange->taken, std::memory_order_release);
              }};
}

void Sum(SharedRanks& shared, int size, int type, std::byte* to, size_t bytes) {
  for (size_t at = 0; at < bytes; at += BytesOf(type)) {
    float sum = ToFloat(type, shared.slot(0) + at);
    for (int rank = 1; rank < size; ++rank) sum += ToFloat(type, shared.slot(rank) + at);
    FromFloat(type, sum, to + at);
  }
}

}  // namespace

struct ncclComm {
  ExchangeRef exchange;
  int device = 0;
  bool blocking = true;
  bool silent = false;  // a fault: never comes
  bool connected = false;
  // Of a call that has said kInProgress: what it puts into streams, and questions until it does.
  std::function<cudaError_t()> pending;
  int questions_left = 0;

  // Until all are there.
  Result Connect() {
    if (connected) return kSuccess;
    if (silent) return kInProgress;
    std::vector<int> devices;
    for (int rank = 0; rank < exchange->size; ++rank) {
      const int device = exchange->shared->rank(rank).device_and_one.load() - 1;
      if (device < 0) return kInProgress;
      const auto same = std::ranges::find(devices, device);
      if (same != devices.end()) {
        return Fail(kInvalidUsage, "Duplicate GPU detected : rank " + std::to_string(rank) +
                                       " and rank " + std::to_string(same - devices.begin()) +
                                       " both on CUDA device " + std::to_string(device));
      }
      devices.push_back(device);
    }
    connected = true;
    return kSuccess;
  }

  Result Put(std::function<cudaError_t()> work) {
    if (pending || !connected) {
      return Fail(kInvalidUsage, "the communicator is still at its last call");
    }
    int current = -1;
    cudaGetDevice(&current);
    if (current != device) return Fail(kInvalidUsage, "another device is current");
    if (!blocking) {
      pending = std::move(work);
      questions_left = 2;
      return kInProgress;
    }
    return work() == cudaSuccess ? kSuccess : kUnhandledCudaError;
  }

  Result Ask() {
    if (!connected) return Connect();
    if (!pending) return kSuccess;
    if (--questions_left > 0) return kInProgress;
    const cudaError_t error = std::exchange(pending, nullptr)();
    return error == cudaSuccess ? kSuccess : kUnhandledCudaError;
  }
};

extern "C" {

Result ncclGetVersion(int* version) {
  *version = 22809;
  return kSuccess;
}

const char* ncclGetErrorString(Result result) {
  switch (result) {
    case kSuccess:
      return "no error";
    case kUnhandledCudaError:
      return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case kSystemError:
      return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case kInvalidArgument:
      return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case kInvalidUsage:
      return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    case kInProgress:
      return "NCCL operation in progress";
  }
  return "unknown result code";
}

const char* ncclGetLastError(ncclComm* /*communicator*/) { return last_error.c_str(); }

Result ncclGetUniqueId(UniqueId* id) {
  *id = {};
  id->place = SharedRanks::Make();
  return id->place.file >= 0 ? kSuccess : Fail(kSystemError, "no shared memory");
}

Result ncclCommInitRankConfig(ncclComm** communicator, int size, UniqueId id, int rank,
                              const Config* config) {
  *communicator = nullptr;
  if (size < 1 || size > kMostRanks || rank < 0 || rank >= size || config == nullptr ||
      config->magic != kConfigMagic || config->size < offsetof(Config, blocking) + sizeof(int)) {
    return Fail(kInvalidArgument, "of ncclCommInitRankConfig");
  }
  if (Fault() == "init") return Fail(kSystemError, "the test's fault");
  auto made = std::make_unique<ncclComm>();
  made->exchange = std::make_shared<Exchange>();
  made->exchange->shared = SharedRanks::Open(id.place);
  if (made->exchange->shared == nullptr) return Fail(kSystemError, "rank 0 is not to be found");
  made->exchange->rank = rank;
  made->exchange->size = size;
  made->blocking = config->blocking != 0;
  made->silent = Fault() == "silent";
  cudaGetDevice(&made->device);
  if (!made->silent) made->exchange->shared->rank(rank).device_and_one = made->device + 1;
  *communicator = made.release();
  if (!(*communicator)->blocking) return kInProgress;
  Result result;
  while ((result = (*communicator)->Connect()) == kInProgress) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return result;
}

// What waits in streams goes on at once; the call itself does not come back while a graph has work
// of the communicator's.
Result ncclCommAbort(ncclComm* communicator) {
  communicator->exchange->aborted = true;
  communicator->pending = nullptr;
  do {
    std::this_thread::sleep_for(kAbortTime);
  } while (communicator->exchange->recorded.use_count() > 1);
  delete communicator;
  return kSuccess;
}

Result ncclCommGetAsyncError(ncclComm* communicator, Result* result) {
  *result = communicator->Ask();
  return kSuccess;
}

Result ncclAllReduce(const void* from, void* to, size_t count, int type, int operation,
                     ncclComm* communicator, cudaStream_t stream) {
  if (operation != 0 || (type != kFloat16 && type != kFloat32 && type != kBfloat16)) {
    return Fail(kInvalidArgument, "only sums of float16, bfloat16 and float32 are emulated");
  }
  if (Fault() == "sum") return Fail(kSystemError, "the test's fault");
  return communicator->Put([=, exchange = communicator->exchange] {
    const size_t bytes = count * BytesOf(type);
    const auto held = HeldBy(stream, *exchange);
    for (size_t at = 0; at < bytes; at += kSlotBytes) {
      const size_t part = std::min(kSlotBytes, bytes - at);
      std::byte* const target = static_cast<std::byte*>(to) + at;
      const auto sum = [=](SharedRanks& shared) {
        Sum(shared, exchange->size, type, target, part);
      };
      const auto give =
          Give("ncclAllReduce", exchange, held, static_cast<const std::byte*>(from) + at, part);
      if (const cudaError_t error = SubmitOutsideWork(stream, give)) return error;
      const auto take = Take("ncclAllReduce", exchange, held, {{target, part}}, sum);
      if (const cudaError_t error = SubmitOutsideWork(stream, take)) return error;
    }
    return cudaSuccess;
  });
}

Result ncclAllGather(const void* from, void* to, size_t count, int type, ncclComm* communicator,
                     cudaStream_t stream) {
  if (type != kFloat16 && type != kFloat32 && type != kBfloat16) {
    return Fail(kInvalidArgument, "only float16, bfloat16 and float32 are emulated");
  }
  return communicator->Put([=, exchange = communicator->exchange] {
    const size_t bytes = count * BytesOf(type);
    const auto held = HeldBy(stream, *exchange);
    for (size_t at = 0; at < bytes; at += kSlotBytes) {
      const size_t part = std::min(kSlotBytes, bytes - at);
      std::vector<quern::simt::Range> targets;
      for (int rank = 0; rank < exchange->size; ++rank) {
        targets.push_back(
            {static_cast<std::byte*>(to) + static_cast<size_t>(rank) * bytes + at, part});
      }
      const auto copy = [targets](SharedRanks& shared) {
        for (size_t rank = 0; rank < targets.size(); ++rank) {
          std::memcpy(const_cast<void*>(targets[rank].begin), shared.slot(static_cast<int>(rank)),
                      targets[rank].bytes);
        }
      };
      const auto give =
          Give("ncclAllGather", exchange, held, static_cast<const std::byte*>(from) + at, part);
      if (const cudaError_t error = SubmitOutsideWork(stream, give)) return error;
      const auto take = Take("ncclAllGather", exchange, held, targets, copy);
      if (const cudaError_t error = SubmitOutsideWork(stream, take)) return error;
    }
    return cudaSuccess;
  });
}

}  // extern "C"
