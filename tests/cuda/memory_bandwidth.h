#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace quern::kernels::testing {

// The two ceilings of the benchmarks: kernels that copy or read `bytes` (a multiple of 16) of
// device memory, 16 bytes a thread, four loads under way. `sink` takes 4 bytes that depend on what
// was read.
void StartCopy(const void* from, void* to, size_t bytes, cudaStream_t stream);
void StartRead(const void* from, size_t bytes, void* sink, cudaStream_t stream);

}  // namespace quern::kernels::testing
