#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// Kernels that show one feature of the emulator each, each started by the function of its name.
namespace quern::kernels::testing {

// out[i] = i * factor for the global thread index i < n.
cudaError_t Scale(int* out, int n, int factor, int blocks, int threads);
// out[block] = the sum of in[block * threads ...], by a tree in static shared memory.
cudaError_t BlockSum(const int* in, int* out, int blocks, int threads);
// out[i] = in[n - 1 - i] within each block, through dynamic shared memory.
cudaError_t Reverse(const int* in, int* out, int blocks, int threads);
// order[i] = the thread that came i-th to an atomic counter.
cudaError_t Arrivals(int* counter, int* order, int blocks, int threads);

// out[i] = i for all threads, kept in shared memory, static and dynamic, while atomics on `counter`
// let other blocks run.
cudaError_t Keep(int* counter, int* out, int blocks, int threads);

// Not a kernel: the sum of the host's numbers, by code that lies beside kernels.
int HostSum(const int* numbers, int count);

}  // namespace quern::kernels::testing
