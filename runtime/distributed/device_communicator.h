#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "runtime/base/result.h"

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern {

class Communicator;

enum class DeviceNumber { kF32, kF16, kBF16 };

// What the processes that serve one model together do in the memory of their GPUs, one each. As
// Communicator, but that calls return when the work is on the stream, where it has its place among
// what else is put there; every rank puts the same calls on its stream in the same order, and
// results are the same bits on every rank. The order of sums may depend on `count`.
//
// An error is final: each later call gives the same one at once. Not thread-safe, but for Abort.
class DeviceCommunicator {
 public:
  virtual ~DeviceCommunicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Whether calls may be recorded in a CUDA graph and repeated with it.
  virtual bool recordable() const = 0;

  // Adds up every rank's `values` [count], elementwise, in place.
  virtual Status AllReduceSum(void* values, int64_t count, DeviceNumber type,
                              CUstream_st* stream) = 0;
  // Puts the ranks' parts [count] one after the other: `all` is [size * count], and apart from
  // `mine`.
  virtual Status AllGather(const void* mine, void* all, int64_t count, DeviceNumber type,
                           CUstream_st* stream) = 0;

  // Waits until `done`, which asks whether what was put on streams has ended, without making this
  // process wait for a rank that is no more: then, or after the timeout, or Abort, the work is
  // given up and the streams go on, with results that are undefined; that is waited for, but not
  // for long. kUnavailable says why. Graphs that have recorded calls must be launched no more
  // then: what the communicator holds is freed once they are destroyed.
  virtual Status Await(const std::function<bool()>& done) = 0;
  // Has an Await that is going on, or the next one, give up. From any thread.
  virtual void Abort() = 0;
};

struct NcclOptions {
  // Looked for as dlopen does. 2.18 or later.
  const char* library = "libnccl.so.2";
  std::chrono::milliseconds connect_timeout{120'000};  // of the ranks' GPUs finding each other
  std::chrono::milliseconds timeout{60'000};           // of Await, and of what a call waits for
};

// The ranks of `group`, on each's current CUDA device, over NCCL, which is opened at run time.
// `group` is used to meet, in this call alone. Errors: kUnsupported where this machine has no NCCL,
// or one that is too old, with what to do; kUnavailable where NCCL cannot begin: no driver, no GPU,
// two ranks on one GPU, a rank that did not come. An error of one rank is one of all, at once, and
// all can do without NCCL then.
Result<std::unique_ptr<DeviceCommunicator>> MakeNcclCommunicator(Communicator& group,
                                                                 const NcclOptions& options = {});

}  // namespace quern
