#include "kernels/simt/runtime/streams.h"

#include <set>

namespace quern::simt {
namespace {

std::set<CUstream_st*>& Streams() {
  static auto* streams = new std::set<CUstream_st*>;
  return *streams;
}
int created = 0;
thread_local bool in_host_function = false;

}  // namespace

bool InHostFunction() { return in_host_function; }
void SetInHostFunction(bool in) { in_host_function = in; }

CUstream_st& DefaultStream() {
  static auto* stream = new CUstream_st{Scheduler::Get().NewLine("the default stream"), true};
  return *stream;
}

CUstream_st* FindStream(cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy) return &DefaultStream();
  return Streams().contains(stream) ? stream : nullptr;
}

void OrderWithDefault(CUstream_st& stream) {
  CUstream_st& default_stream = DefaultStream();
  if (&stream != &default_stream) {
    if (stream.blocking) stream.line.WaitFor(default_stream.line.last);
    return;
  }
  for (CUstream_st* other : Streams()) {
    if (other->blocking) stream.line.WaitFor(other->line.last);
  }
}

cudaError_t Submit(cudaStream_t handle, const Work& work, TaskRef* task) {
  CUstream_st* stream = FindStream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->capture != nullptr) return AddNode(*stream, work);
  if (stream == &DefaultStream()) {
    if (const cudaError_t error = RefuseDefault()) return error;
  }
  OrderWithDefault(*stream);
  const TaskRef made = Scheduler::Get().Enqueue(stream->line, work);
  if (task != nullptr) *task = made;
  return cudaSuccess;
}

cudaError_t Failure() {
  return Scheduler::Get().TakeFailure() ? cudaErrorLaunchFailure : cudaSuccess;
}

}  // namespace quern::simt

using quern::simt::Api;
using quern::simt::DefaultStream;
using quern::simt::Lock;
using quern::simt::Scheduler;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return Api([&](Lock&) {
    if (stream == nullptr || (flags & ~cudaStreamNonBlocking) != 0) return cudaErrorInvalidValue;
    const std::string name = "stream " + std::to_string(++quern::simt::created);
    *stream = new CUstream_st{Scheduler::Get().NewLine(name), flags != cudaStreamNonBlocking};
    quern::simt::Streams().insert(*stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int /*priority*/) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return cudaSuccess;
}

// Its work goes on.
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  return Api([&](Lock&) {
    CUstream_st* stream = quern::simt::FindStream(handle);
    if (stream == nullptr || stream == &DefaultStream()) return cudaErrorInvalidResourceHandle;
    quern::simt::LeaveCapture(*stream);
    if (stream->blocking) DefaultStream().line.WaitFor(stream->line.last);
    quern::simt::Streams().erase(stream);
    delete stream;
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return Api([&](Lock& lock) {
    CUstream_st* stream = quern::simt::FindStream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = quern::simt::RefuseWaiting(*stream)) return error;
    // Waiting for the default stream is waiting for what its next work would wait for.
    if (stream == &DefaultStream()) {
      quern::simt::OrderWithDefault(*stream);
      Scheduler::Get().WaitFor(Scheduler::Get().Enqueue(stream->line, {}), lock);
    } else {
      Scheduler::Get().WaitFor(stream->line.last, lock);
    }
    return quern::simt::Failure();
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return Api([&](Lock& lock) {
    CUstream_st* stream = quern::simt::FindStream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = quern::simt::RefuseWaiting(*stream)) return error;
    const bool done = Scheduler::Get().Poll(stream->line.last, lock);
    if (const cudaError_t error = quern::simt::Failure()) return error;
    return done ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return Api([](Lock& lock) {
    if (const cudaError_t error = quern::simt::RefuseUnsafe()) return error;
    Scheduler::Get().WaitForAll(lock);
    return quern::simt::Failure();
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument,
                               quern::simt::Where where) {
  return Api([&](Lock&) {
    if (function == nullptr) return cudaErrorInvalidValue;
    quern::simt::Work work;
    work.kind = quern::simt::Work::Kind::kHostFunction;
    work.name = "cudaLaunchHostFunc";
    work.where = where;
    work.entry = reinterpret_cast<const void*>(function);
    work.call = [function, argument] {
      quern::simt::SetInHostFunction(true);
      function(argument);
      quern::simt::SetInHostFunction(false);
    };
    return quern::simt::Submit(stream, work);
  });
}
