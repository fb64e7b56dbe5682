#pragma once

#include <cstddef>

#include "kernels/simt/cuda_types.h"
#include "kernels/simt/device.h"

// Memory and copies. Part of cuda_runtime_api.h.

cudaError_t cudaMalloc(void** memory, size_t bytes);
template <typename T>
cudaError_t cudaMalloc(T** memory, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(memory), bytes);
}
// Waits for the device, as every driver does so far, unless the memory is cudaMallocAsync's.
cudaError_t cudaFree(void* memory, quern::simt::Where where = quern::simt::Where::Here());
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);

cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t stream,
                            quern::simt::Where where = quern::simt::Where::Here());
template <typename T>
cudaError_t cudaMallocAsync(T** memory, size_t bytes, cudaStream_t stream,
                            quern::simt::Where where = quern::simt::Where::Here()) {
  return cudaMallocAsync(reinterpret_cast<void**>(memory), bytes, stream, where);
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream,
                          quern::simt::Where where = quern::simt::Where::Here());

// What is freed in a stream's order is the device's again when the stream has come there: the pool
// keeps nothing, so there is nothing to trim.
using cudaMemPool_t = struct CUmemPoolHandle_st*;
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device);
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep);

inline constexpr unsigned cudaHostAllocDefault = 0;
inline constexpr unsigned cudaHostAllocPortable = 1;
inline constexpr unsigned cudaHostAllocMapped = 2;  // not supported
inline constexpr unsigned cudaHostAllocWriteCombined = 4;
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* memory);
template <typename T>
cudaError_t cudaHostAlloc(T** memory, size_t bytes, unsigned flags) {
  return cudaHostAlloc(reinterpret_cast<void**>(memory), bytes, flags);
}
template <typename T>
cudaError_t cudaMallocHost(T** memory, size_t bytes) {
  return cudaHostAlloc(reinterpret_cast<void**>(memory), bytes, cudaHostAllocDefault);
}

enum cudaMemcpyKind {
  cudaMemcpyHostToHost = 0,
  cudaMemcpyHostToDevice = 1,
  cudaMemcpyDeviceToHost = 2,
  cudaMemcpyDeviceToDevice = 3,
  cudaMemcpyDefault = 4,
};
// The forms without Async are in the default stream; those to or from the host wait for it.
cudaError_t cudaMemset(void* memory, int byte, size_t bytes,
                       quern::simt::Where where = quern::simt::Where::Here());
cudaError_t cudaMemsetAsync(void* memory, int byte, size_t bytes, cudaStream_t stream = nullptr,
                            quern::simt::Where where = quern::simt::Where::Here());
cudaError_t cudaMemset2DAsync(void* memory, size_t pitch, int byte, size_t width, size_t height,
                              cudaStream_t stream = nullptr,
                              quern::simt::Where where = quern::simt::Where::Here());
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                       quern::simt::Where where = quern::simt::Where::Here());
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr,
                            quern::simt::Where where = quern::simt::Where::Here());
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                         size_t width, size_t height, cudaMemcpyKind kind,
                         quern::simt::Where where = quern::simt::Where::Here());
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream = nullptr,
                              quern::simt::Where where = quern::simt::Where::Here());

// __device__ and __constant__ variables. A symbol is the variable itself, as in CUDA C++.
namespace quern::simt {
cudaError_t SymbolAddress(void** address, const void* symbol, size_t offset, size_t bytes);
}  // namespace quern::simt
template <typename T>
cudaError_t cudaGetSymbolAddress(void** address, const T& symbol) {
  return quern::simt::SymbolAddress(address, &symbol, 0, sizeof(T));
}
template <typename T>
cudaError_t cudaGetSymbolSize(size_t* bytes, const T& symbol) {
  void* address;
  *bytes = sizeof(T);
  return quern::simt::SymbolAddress(&address, &symbol, 0, sizeof(T));
}
template <typename T>
cudaError_t cudaMemcpyToSymbol(const T& symbol, const void* from, size_t bytes, size_t offset = 0,
                               cudaMemcpyKind kind = cudaMemcpyHostToDevice,
                               quern::simt::Where where = quern::simt::Where::Here()) {
  void* to;
  const cudaError_t error = quern::simt::SymbolAddress(&to, &symbol, offset, bytes);
  return error != cudaSuccess ? error : cudaMemcpy(to, from, bytes, kind, where);
}
template <typename T>
cudaError_t cudaMemcpyToSymbolAsync(const T& symbol, const void* from, size_t bytes, size_t offset,
                                    cudaMemcpyKind kind, cudaStream_t stream = nullptr,
                                    quern::simt::Where where = quern::simt::Where::Here()) {
  void* to;
  const cudaError_t error = quern::simt::SymbolAddress(&to, &symbol, offset, bytes);
  return error != cudaSuccess ? error : cudaMemcpyAsync(to, from, bytes, kind, stream, where);
}
template <typename T>
cudaError_t cudaMemcpyFromSymbol(void* to, const T& symbol, size_t bytes, size_t offset = 0,
                                 cudaMemcpyKind kind = cudaMemcpyDeviceToHost,
                                 quern::simt::Where where = quern::simt::Where::Here()) {
  void* from;
  const cudaError_t error = quern::simt::SymbolAddress(&from, &symbol, offset, bytes);
  return error != cudaSuccess ? error : cudaMemcpy(to, from, bytes, kind, where);
}
template <typename T>
cudaError_t cudaMemcpyFromSymbolAsync(void* to, const T& symbol, size_t bytes, size_t offset,
                                      cudaMemcpyKind kind, cudaStream_t stream = nullptr,
                                      quern::simt::Where where = quern::simt::Where::Here()) {
  void* from;
  const cudaError_t error = quern::simt::SymbolAddress(&from, &symbol, offset, bytes);
  return error != cudaSuccess ? error : cudaMemcpyAsync(to, from, bytes, kind, stream, where);
}
