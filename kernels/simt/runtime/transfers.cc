#include <algorithm>
#include <cstring>

#include "kernels/simt/machine.h"
#include "kernels/simt/outside_work.h"
#include "kernels/simt/runtime/streams.h"

namespace quern::simt {
namespace {

Rows RowsOf(const void* first, size_t pitch, size_t width, size_t height) {
  return {static_cast<uint8_t*>(const_cast<void*>(first)), pitch, width, height};
}

// Device memory, or what was until it was freed.
bool OnDevice(const Rows& rows) {
  GlobalMemory& global = Machine::Get().global();
  return global.Find(rows.first, rows.extent()) != nullptr ||
         global.WasFreed(reinterpret_cast<uintptr_t>(rows.first));
}
bool OnHost(const Rows& rows) {
  return Machine::Get().global().Find(reinterpret_cast<uintptr_t>(rows.first)) == nullptr;
}

bool TouchRows(const Rows& rows, Touch touch) {
  if (rows.pitch == rows.width) {
    return Machine::Get().TouchForTransfer(rows.first, rows.bytes(), touch);
  }
  for (size_t r = 0; r < rows.height; ++r) {
    if (!Machine::Get().TouchForTransfer(rows.Row(r), rows.width, touch)) return false;
  }
  return true;
}

bool Set(const Rows& to, int byte, const OperationRef& operation) {
  Machine& machine = Machine::Get();
  machine.BeginTransfer(operation);
  if (!TouchRows(to, Touch::kWrite)) return false;
  for (size_t r = 0; r < to.height; ++r) std::memset(to.Row(r), byte, to.width);
  return machine.EndTransfer();
}

// The host's side is the task's own bytes, row after row.
bool Copy(const Rows& to, const Rows& from, const TaskRef& task) {
  Machine& machine = Machine::Get();
  machine.BeginTransfer(task);
  const HostUse use = task->work.host_use;
  if (use != HostUse::kRead && !TouchRows(from, Touch::kRead)) return false;
  if (use != HostUse::kWrite && !TouchRows(to, Touch::kWrite)) return false;
  if (use == HostUse::kWrite) task->bytes.resize(from.bytes());
  const Rows own = RowsOf(task->bytes.data(), to.width, to.width, to.height);
  const Rows& source = use == HostUse::kRead ? own : from;
  const Rows& target = use == HostUse::kWrite ? own : to;
  for (size_t r = 0; r < to.height; ++r) std::memmove(target.Row(r), source.Row(r), to.width);
  return machine.EndTransfer();
}

cudaMemcpyKind KindOf(const Rows& to, const Rows& from, cudaMemcpyKind kind) {
  if (kind != cudaMemcpyDefault) return kind;
  if (OnHost(from)) return OnHost(to) ? cudaMemcpyHostToHost : cudaMemcpyHostToDevice;
  return OnHost(to) ? cudaMemcpyDeviceToHost : cudaMemcpyDeviceToDevice;
}

// Complete when the call returns.
cudaError_t CopyOnHost(const Rows& to, const Rows& from, cudaStream_t handle, Lock& lock) {
  CUstream_st* stream = FindStream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (!OnHost(to) || !OnHost(from)) return cudaErrorInvalidValue;
  if (const cudaError_t error = RefuseWaiting(*stream)) return error;
  Scheduler::Get().WaitFor(stream->line.last, lock);
  for (size_t r = 0; r < to.height; ++r) std::memcpy(to.Row(r), from.Row(r), to.width);
  return Failure();
}

struct CopyCall {
  const char* name;
  bool waits;  // the host does, if its memory is concerned
  Where where;
};

cudaError_t SubmitCopy(const Rows& to, const Rows& from, cudaMemcpyKind kind, cudaStream_t stream,
                       const CopyCall& call, Lock& lock) {
  if (to.width > to.pitch || to.width > from.pitch) return cudaErrorInvalidPitchValue;
  if (call.waits) {
    if (const cudaError_t error = RefuseUnsafe()) return error;
  }
  if (to.bytes() == 0) return cudaSuccess;
  kind = KindOf(to, from, kind);
  if (kind == cudaMemcpyHostToHost) return CopyOnHost(to, from, stream, lock);
  Work work;
  work.kind = Work::Kind::kCopy;
  work.name = call.name;
  work.where = call.where;
  if (kind == cudaMemcpyHostToDevice) {
    work.host = from;
    work.host_use = HostUse::kRead;
  } else if (kind == cudaMemcpyDeviceToHost) {
    work.host = to;
    work.host_use = HostUse::kWrite;
  }
  const bool to_device = kind != cudaMemcpyDeviceToHost;
  const bool from_device = kind != cudaMemcpyHostToDevice;
  if (!(to_device ? OnDevice(to) : OnHost(to)) || !(from_device ? OnDevice(from) : OnHost(from))) {
    return cudaErrorInvalidValue;
  }
  work.host_waits = call.waits && work.host_use != HostUse::kNone;
  work.run = [to, from](const TaskRef& task) { return Copy(to, from, task); };
  TaskRef task;
  if (const cudaError_t error = Submit(stream, work, &task)) return error;
  if (!work.host_waits) return cudaSuccess;
  Scheduler::Get().WaitFor(task, lock);
  return Failure();
}

cudaError_t SubmitSet(const Rows& to, int byte, cudaStream_t stream, const char* name,
                      Where where) {
  if (to.width > to.pitch) return cudaErrorInvalidPitchValue;
  if (to.bytes() == 0) return cudaSuccess;
  if (!OnDevice(to)) return cudaErrorInvalidValue;
  Work work;
  work.kind = Work::Kind::kSet;
  work.name = name;
  work.where = where;
  work.run = [to, byte](const TaskRef& task) { return Set(to, byte, task); };
  return Submit(stream, work);
}

bool TouchRanges(const std::vector<Range>& ranges, Touch touch) {
  return std::ranges::all_of(ranges, [touch](const Range& range) {
    return Machine::Get().TouchForTransfer(range.begin, range.bytes, touch);
  });
}

}  // namespace

cudaError_t SubmitOutsideWork(cudaStream_t stream, const OutsideWork& outside, Where where) {
  return Api([&](Lock&) {
    Work work;
    work.kind = Work::Kind::kCopy;
    work.name = outside.name;
    work.where = where;
    work.may_begin = outside.may_begin;
    work.run = [outside](const TaskRef& task) {
      Machine& machine = Machine::Get();
      machine.BeginTransfer(task);
      if (!TouchRanges(outside.reads, Touch::kRead)) return false;
      if (!TouchRanges(outside.writes, Touch::kWrite)) return false;
      outside.run();
      return machine.EndTransfer();
    };
    return Submit(stream, work);
  });
}

}  // namespace quern::simt

using quern::simt::Api;
using quern::simt::Lock;
using quern::simt::RowsOf;

cudaError_t cudaMemset(void* memory, int byte, size_t bytes, quern::simt::Where where) {
  return Api([&](Lock&) {
    if (const cudaError_t error = quern::simt::RefuseUnsafe()) return error;
    return quern::simt::SubmitSet(RowsOf(memory, bytes, bytes, 1), byte, nullptr, "cudaMemset",
                                  where);
  });
}

cudaError_t cudaMemsetAsync(void* memory, int byte, size_t bytes, cudaStream_t stream,
                            quern::simt::Where where) {
  return Api([&](Lock&) {
    return quern::simt::SubmitSet(RowsOf(memory, bytes, bytes, 1), byte, stream, "cudaMemsetAsync",
                                  where);
  });
}

cudaError_t cudaMemset2DAsync(void* memory, size_t pitch, int byte, size_t width, size_t height,
                              cudaStream_t stream, quern::simt::Where where) {
  return Api([&](Lock&) {
    return quern::simt::SubmitSet(RowsOf(memory, pitch, width, height), byte, stream,
                                  "cudaMemset2DAsync", where);
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                       quern::simt::Where where) {
  return Api([&](Lock& lock) {
    return quern::simt::SubmitCopy(RowsOf(to, bytes, bytes, 1), RowsOf(from, bytes, bytes, 1), kind,
                                   nullptr, {"cudaMemcpy", true, where}, lock);
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream, quern::simt::Where where) {
  return Api([&](Lock& lock) {
    return quern::simt::SubmitCopy(RowsOf(to, bytes, bytes, 1), RowsOf(from, bytes, bytes, 1), kind,
                                   stream, {"cudaMemcpyAsync", false, where}, lock);
  });
}

cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                         size_t width, size_t height, cudaMemcpyKind kind,
                         quern::simt::Where where) {
  return Api([&](Lock& lock) {
    return quern::simt::SubmitCopy(RowsOf(to, to_pitch, width, height),
                                   RowsOf(from, from_pitch, width, height), kind, nullptr,
                                   {"cudaMemcpy2D", true, where}, lock);
  });
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t stream,
                              quern::simt::Where where) {
  return Api([&](Lock& lock) {
    return quern::simt::SubmitCopy(RowsOf(to, to_pitch, width, height),
                                   RowsOf(from, from_pitch, width, height), kind, stream,
                                   {"cudaMemcpy2DAsync", false, where}, lock);
  });
}
