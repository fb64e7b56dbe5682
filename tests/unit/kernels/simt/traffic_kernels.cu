#include "kernels/cuda/common/ptx.cuh"
#include "tests/unit/kernels/simt/start_kernel.h"
#include "tests/unit/kernels/simt/traffic_kernels.h"

namespace quern::kernels {

__global__ void StridedCopyKernel(const int* in, int* out, int stride) {
  out[threadIdx.x] = in[static_cast<int>(threadIdx.x) * stride];
}

constexpr int kSharedWords = 32 * 32;

__device__ void Fill(int* words) {
  for (int i = static_cast<int>(threadIdx.x); i < kSharedWords; i += 32) words[i] = i;
  __syncwarp();
}

__global__ void StridedSharedKernel(int* out, int stride) {
  extern __shared__ __align__(128) int shared[];
  Fill(shared);
  out[threadIdx.x] = shared[static_cast<int>(threadIdx.x) * stride];
}

// Lanes whose numbers differ in `bit` alone load the same 16 bytes; with 0, none do.
__global__ void WideSharedKernel(int* out, int bit) {
  extern __shared__ __align__(128) int shared[];
  Fill(shared);
  const int lane = static_cast<int>(threadIdx.x);
  const int at = bit == 0 ? lane : lane % bit + lane / (2 * bit) * bit;
  const int4 four = reinterpret_cast<const int4*>(shared)[at];
  out[threadIdx.x] = four.x + four.y + four.z + four.w;
}

__global__ void StridedRowsKernel(int* out, int stride) {
  extern __shared__ __align__(128) int shared[];
  Fill(shared);
  uint32_t words[4];
  ptx::LoadMatrices(words, reinterpret_cast<const char*>(shared) + threadIdx.x * stride);
  out[threadIdx.x] = static_cast<int>(words[0] + words[1] + words[2] + words[3]);
}

namespace testing {

constexpr size_t kBytes = kSharedWords * sizeof(int);

cudaError_t StridedCopy(const int* in, int* out, int stride, int threads) {
  return Start(StridedCopyKernel, 1, threads, 0, in, out, stride);
}
cudaError_t StridedShared(int* out, int stride) {
  return Start(StridedSharedKernel, 1, 32, kBytes, out, stride);
}
cudaError_t WideShared(int* out, int bit) {
  return Start(WideSharedKernel, 1, 32, kBytes, out, bit);
}
cudaError_t StridedRows(int* out, int stride) {
  return Start(StridedRowsKernel, 1, 32, kBytes, out, stride);
}

}  // namespace testing
}  // namespace quern::kernels
