#pragma once

#include <cuda_runtime.h>

namespace quern::kernels::testing {

// out[i] = in[i * stride] for each of the threads.
cudaError_t StridedCopy(const int* in, int* out, int stride, int threads);
// One warp reads words of shared memory that lie `stride` words apart; 0: the same one.
cudaError_t StridedShared(int* out, int stride);
// One warp reads 16 bytes per lane, side by side.
cudaError_t WideShared(int* out, int bit);
// One warp's ldmatrix.x4 of rows that lie `stride` bytes apart.
cudaError_t StridedRows(int* out, int stride);

}  // namespace quern::kernels::testing
