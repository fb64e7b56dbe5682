#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "kernels/simt/cuda_runtime_api.h"
#include "kernels/simt/runtime/scheduler.h"

// What the functions of the runtime share. All with the scheduler's lock.
namespace quern::simt {
struct Capture;
}  // namespace quern::simt

struct CUstream_st {
  quern::simt::Line line;
  bool blocking = true;  // in order with the default stream
  // While it is captured: what its next node comes after.
  std::shared_ptr<quern::simt::Capture> capture;
  int branch = 0;
  std::vector<int> tips;
};

namespace quern::simt {

// Remembers the error as the calling thread's last one.
cudaError_t Say(cudaError_t error);
// Whether the thread is in a host function, where the runtime may not be called.
bool InHostFunction();
void SetInHostFunction(bool in);

// A function of the runtime: fn(lock), with the lock.
template <typename Fn>
cudaError_t Api(Fn fn) {
  if (InHostFunction()) return Say(cudaErrorNotPermitted);
  Lock lock = Scheduler::Get().Enter();
  return Say(fn(lock));
}

// Null if there is no such stream.
CUstream_st* FindStream(cudaStream_t stream);
CUstream_st& DefaultStream();

// Work that a thread asks for in a stream: a node if the stream is captured, else a task (null, as
// *task, for a node).
cudaError_t Submit(cudaStream_t stream, const Work& work, TaskRef* task = nullptr);
// Before other work is put in the stream's line: default and blocking streams wait for each other.
void OrderWithDefault(CUstream_st& stream);
// What has failed, as a result.
cudaError_t Failure();

// capture.cc. What a call must answer, at once, while some stream is captured; cudaSuccess:
// nothing. Of calls that are not in a stream, as cudaMalloc, which a capture would not see:
cudaError_t RefuseUnsafe();
// Of work in the default stream, which would come after that of a captured stream:
cudaError_t RefuseDefault();
// Of calls that wait for a stream that is captured:
cudaError_t RefuseWaiting(CUstream_st& stream);
cudaError_t AddNode(CUstream_st& stream, const Work& work);
// A captured stream is destroyed.
void LeaveCapture(CUstream_st& stream);

}  // namespace quern::simt
