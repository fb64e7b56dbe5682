#include <set>

#include "kernels/simt/runtime/capture.h"
#include "kernels/simt/runtime/streams.h"

struct CUevent_st {
  unsigned flags = 0;
  quern::simt::TaskRef task;            // what it was recorded after, or
  quern::simt::CapturedEvent captured;  // in a capture
};

namespace quern::simt {
namespace {

std::set<cudaEvent_t>& Events() {
  static auto* events = new std::set<cudaEvent_t>;
  return *events;
}

// What a call that asks for an event's state must answer.
cudaError_t Refuse(cudaEvent_t event) {
  if (!Events().contains(event)) return cudaErrorInvalidResourceHandle;
  if (event->captured.capture == nullptr) return cudaSuccess;
  if (event->captured.capture->ended) return cudaErrorCapturedEvent;
  return Invalidate(*event->captured.capture, cudaErrorCapturedEvent);
}

cudaError_t Record(CUevent_st& event, cudaStream_t handle, Where where) {
  CUstream_st* stream = FindStream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->capture != nullptr) {
    if (stream->capture->invalid) return cudaErrorStreamCaptureInvalidated;
    event.task = nullptr;
    event.captured = {stream->capture, stream->tips};
    return cudaSuccess;
  }
  Work marker;
  marker.name = "cudaEventRecord";
  marker.where = where;
  TaskRef task;
  const cudaError_t error = Submit(handle, marker, &task);
  if (error != cudaSuccess) return error;
  event.captured = {};
  event.task = std::move(task);
  return cudaSuccess;
}

}  // namespace
}  // namespace quern::simt

using quern::simt::Api;
using quern::simt::Lock;
using quern::simt::Scheduler;

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return Api([&](Lock&) {
    if (event == nullptr || (flags & ~(cudaEventBlockingSync | cudaEventDisableTiming)) != 0) {
      return cudaErrorInvalidValue;
    }
    *event = new CUevent_st{flags, nullptr, {}};
    quern::simt::Events().insert(*event);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return Api([&](Lock&) {
    if (quern::simt::Events().erase(event) == 0) return cudaErrorInvalidResourceHandle;
    delete event;
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream, quern::simt::Where where) {
  return Api([&](Lock&) {
    if (!quern::simt::Events().contains(event)) return cudaErrorInvalidResourceHandle;
    return quern::simt::Record(*event, stream, where);
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return Api([&](Lock& lock) {
    if (const cudaError_t error = quern::simt::Refuse(event)) return error;
    const bool done = Scheduler::Get().Poll(event->task, lock);
    if (const cudaError_t error = quern::simt::Failure()) return error;
    return done ? cudaSuccess : cudaErrorNotReady;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return Api([&](Lock& lock) {
    if (const cudaError_t error = quern::simt::Refuse(event)) return error;
    Scheduler::Get().WaitFor(event->task, lock);
    return quern::simt::Failure();
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return Api([&](Lock&) {
    for (cudaEvent_t event : {start, end}) {
      if (const cudaError_t error = quern::simt::Refuse(event)) return error;
      if (event->task == nullptr || (event->flags & cudaEventDisableTiming) != 0) {
        return cudaErrorInvalidResourceHandle;
      }
      if (!event->task->done || !Scheduler::Get().host().Knows(event->task->stamp)) {
        return cudaErrorNotReady;
      }
    }
    *milliseconds =
        std::chrono::duration<float, std::milli>(end->task->finished - start->task->finished)
            .count();
    return cudaSuccess;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned flags) {
  return Api([&](Lock&) {
    CUstream_st* stream = quern::simt::FindStream(handle);
    if (stream == nullptr || !quern::simt::Events().contains(event)) {
      return cudaErrorInvalidResourceHandle;
    }
    if (flags != 0) return cudaErrorInvalidValue;
    if (event->captured.capture != nullptr) {
      return quern::simt::JoinCapture(*stream, event->captured);
    }
    if (stream->capture != nullptr) {
      return quern::simt::Invalidate(*stream->capture, cudaErrorStreamCaptureIsolation);
    }
    if (event->task != nullptr) stream->line.WaitFor(event->task);
    return cudaSuccess;
  });
}
