#pragma once

#include <cuda_runtime.h>

// Kernels for tests of the order of a device's work, each of one block of 64 threads.
namespace quern::kernels::testing {

// values[i] += add, for i < count.
cudaError_t AddTo(int* values, int count, int add, cudaStream_t stream);
// to[i] = from[i]
cudaError_t CopyInts(const int* from, int* to, int count, cudaStream_t stream);
// to[i] = value
cudaError_t FillInts(int* to, int count, int value, cudaStream_t stream);
// atomicAdd(counter, 1) by each thread.
cudaError_t CountThreads(int* counter, cudaStream_t stream);
// Notes that it is `number`'s turn.
cudaError_t TakeTurn(int* turns, int* order, int number, cudaStream_t stream);

}  // namespace quern::kernels::testing
