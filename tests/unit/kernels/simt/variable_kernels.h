#pragma once

#include <cuda_runtime.h>

// Kernels with __device__ and __constant__ variables, and the host's access to these.
namespace quern::kernels::testing {

inline constexpr int kTableInts = 8;

cudaError_t SetTable(const int* values, cudaStream_t stream);
cudaError_t SetTableAndWait(const int* values);
// out[i] = table[i % 8] for 64 threads, and adds 64 to the variable `calls`.
cudaError_t UseTable(int* out, cudaStream_t stream);
cudaError_t GetCalls(int* calls);
cudaError_t ResetCalls(int calls);
// Each thread adds 1 to `calls`, without an atomic: a race.
cudaError_t CountBadly();
// Copies more than the table holds, and into what is no variable.
cudaError_t SetTooMuch(const int* values);
cudaError_t SetWhatIsNone(const int* values);

}  // namespace quern::kernels::testing
