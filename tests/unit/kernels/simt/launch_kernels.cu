#include "tests/unit/kernels/simt/launch_kernels.h"
#include "tests/unit/kernels/simt/start_kernel.h"

namespace quern::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void ScaleKernel(int* out, int n, int factor) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = i * factor;
}

__global__ void BlockSumKernel(const int* in, int* out) {
  __shared__ int parts[kThreads];
  const unsigned t = threadIdx.x;
  parts[t] = in[blockIdx.x * blockDim.x + t];
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (t < half) parts[t] += parts[t + half];
    __syncthreads();
  }
  if (t == 0) out[blockIdx.x] = parts[0];
}

}  // namespace

__global__ void ReverseKernel(const int* in, int* out) {
  extern __shared__ __align__(16) int shared[];
  const unsigned first = blockIdx.x * blockDim.x;
  shared[threadIdx.x] = in[first + threadIdx.x];
  __syncthreads();
  out[first + threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

namespace {

__global__ void ArrivalsKernel(int* counter, int* order) {
  const int at = atomicAdd(counter, 1);
  order[at] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

}  // namespace

__global__ void KeepKernel(int* counter, int* out) {
  extern __shared__ __align__(16) int shared[];
  __shared__ int first;
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  shared[threadIdx.x] = i;
  if (threadIdx.x == 0) first = i;
  for (int turn = 0; turn < 8; ++turn) atomicAdd(counter, 1);
  __syncthreads();
  for (int turn = 0; turn < 8; ++turn) atomicAdd(counter, 1);
  out[i] = first + shared[(threadIdx.x + 1) % blockDim.x] - shared[0];
}

namespace testing {

cudaError_t Scale(int* out, int n, int factor, int blocks, int threads) {
  return Start(ScaleKernel, blocks, threads, 0, out, n, factor);
}
cudaError_t BlockSum(const int* in, int* out, int blocks, int threads) {
  return Start(BlockSumKernel, blocks, threads, 0, in, out);
}
cudaError_t Reverse(const int* in, int* out, int blocks, int threads) {
  return Start(ReverseKernel, blocks, threads, static_cast<size_t>(threads) * 4, in, out);
}
cudaError_t Arrivals(int* counter, int* order, int blocks, int threads) {
  return Start(ArrivalsKernel, blocks, threads, 0, counter, order);
}

cudaError_t Keep(int* counter, int* out, int blocks, int threads) {
  return Start(KeepKernel, blocks, threads, static_cast<size_t>(threads) * 4, counter, out);
}

int HostSum(const int* numbers, int count) {
  int sum = 0;
  for (int i = 0; i < count; ++i) sum += numbers[i];
  return sum;
}

}  // namespace testing
}  // namespace quern::kernels
