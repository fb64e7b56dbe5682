#include "kernels/simt/machine.h"
#include "kernels/simt/runtime/pinned.h"
#include "kernels/simt/runtime/streams.h"

namespace quern::simt {
namespace {

// Whether this much more fits, once what is still to be freed is.
bool HasRoom(size_t bytes, Lock& lock, const TaskRef& last) {
  const size_t all = Machine::Get().wanted_options().device_memory;
  const auto fits = [&] {
    const size_t used = Machine::Get().global().bytes_used();
    return used <= all && bytes <= all - used;
  };
  if (!fits()) Scheduler::Get().Run(last, lock);
  return fits();
}

cudaError_t Allocate(void** memory, size_t bytes, Lock& lock) {
  if (memory == nullptr) return cudaErrorInvalidValue;
  if (const cudaError_t error = RefuseUnsafe()) return error;
  if (!HasRoom(bytes, lock, nullptr)) return cudaErrorMemoryAllocation;
  *memory = Machine::Get().global().Allocate(bytes);
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

// The allocation that begins here, or null.
GlobalMemory::Allocation* FindStart(void* memory) {
  GlobalMemory::Allocation* found = Machine::Get().global().Find(memory, 0);
  const bool starts = found != nullptr && found->memory == memory && found->block != nullptr;
  return starts ? found : nullptr;
}

cudaError_t Free(void* memory, Where where, Lock& lock) {
  if (const cudaError_t error = RefuseUnsafe()) return error;
  if (memory == nullptr) return cudaSuccess;
  const GlobalMemory::Allocation* found = FindStart(memory);
  if (found == nullptr) return cudaErrorInvalidValue;
  Scheduler& scheduler = Scheduler::Get();
  if (found->made == nullptr) {
    scheduler.WaitForAll(lock);
  } else if (found->freed == nullptr) {
    const OperationRef operation = scheduler.HostOperation("cudaFree", where);
    if (!Machine::Get().FreeInOrder(memory, operation)) scheduler.Fail();
  }
  Machine::Get().global().Free(memory, scheduler.HostOperation("cudaFree", where)->Text());
  return Failure();
}

cudaError_t AllocateAsync(void** memory, size_t bytes, cudaStream_t handle, Where where,
                          Lock& lock) {
  CUstream_st* stream = FindStream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (memory == nullptr) return cudaErrorInvalidValue;
  if (stream->capture == nullptr && !HasRoom(bytes, lock, stream->line.last)) {
    return cudaErrorMemoryAllocation;
  }
  Work work;
  work.kind = Work::Kind::kAllocate;
  work.name = "cudaMallocAsync";
  work.where = where;
  TaskRef task;
  if (const cudaError_t error = Submit(handle, work, &task)) return error;
  *memory = Machine::Get().global().Allocate(bytes, task);
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t FreeAsync(void* memory, cudaStream_t stream, Where where) {
  if (memory == nullptr) return cudaSuccess;
  if (FindStart(memory) == nullptr) return cudaErrorInvalidValue;
  Work work;
  work.kind = Work::Kind::kFree;
  work.name = "cudaFreeAsync";
  work.where = where;
  work.run = [memory](const TaskRef& task) { return Machine::Get().FreeInOrder(memory, task); };
  return Submit(stream, work);
}

}  // namespace
}  // namespace quern::simt

using quern::simt::Api;
using quern::simt::Lock;
using quern::simt::Machine;

cudaError_t quern::simt::SymbolAddress(void** address, const void* symbol, size_t offset,
                                       size_t bytes) {
  return Api([&](Lock&) {
    const auto* found = Machine::Get().FindGlobal(reinterpret_cast<uintptr_t>(symbol));
    if (found == nullptr || found->memory != symbol || found->block != nullptr) {
      return cudaErrorInvalidSymbol;
    }
    if (offset > found->bytes || bytes > found->bytes - offset) return cudaErrorInvalidValue;
    *address = found->memory + offset;
    return cudaSuccess;
  });
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  return Api([&](Lock& lock) { return quern::simt::Allocate(memory, bytes, lock); });
}

cudaError_t cudaFree(void* memory, quern::simt::Where where) {
  return Api([&](Lock& lock) { return quern::simt::Free(memory, where, lock); });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return Api([&](Lock&) {
    *total = Machine::Get().wanted_options().device_memory;
    const size_t used = Machine::Get().global().bytes_used();
    *free = used < *total ? *total - used : 0;
    return cudaSuccess;
  });
}

cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t stream,
                            quern::simt::Where where) {
  return Api(
      [&](Lock& lock) { return quern::simt::AllocateAsync(memory, bytes, stream, where, lock); });
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream, quern::simt::Where where) {
  return Api([&](Lock&) { return quern::simt::FreeAsync(memory, stream, where); });
}

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned flags) {
  return Api([&](Lock&) {
    if (memory == nullptr) return cudaErrorInvalidValue;
    if ((flags & ~(cudaHostAllocPortable | cudaHostAllocWriteCombined)) != 0) {
      return cudaErrorNotSupported;
    }
    if (const cudaError_t error = quern::simt::RefuseUnsafe()) return error;
    *memory = bytes == 0 ? nullptr : quern::simt::AllocatePinned(bytes);
    return bytes != 0 && *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
  });
}

cudaError_t cudaFreeHost(void* memory) {
  return Api([&](Lock&) {
    if (const cudaError_t error = quern::simt::RefuseUnsafe()) return error;
    if (memory == nullptr) return cudaSuccess;
    const quern::simt::Rows rows = quern::simt::FindPinned(memory);
    if (rows.first == nullptr) return cudaErrorInvalidValue;
    quern::simt::Scheduler& scheduler = quern::simt::Scheduler::Get();
    if (!scheduler.transfers().MayFree(rows)) scheduler.Fail();
    quern::simt::FreePinned(memory);
    return quern::simt::Failure();
  });
}
