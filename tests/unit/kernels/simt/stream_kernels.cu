#include "tests/unit/kernels/simt/stream_kernels.h"

namespace quern::kernels {

__global__ void AddKernel(int* values, int count, int add) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) values[i] += add;
}

__global__ void CopyKernel(const int* from, int* to, int count) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) to[i] = from[i];
}

__global__ void FillKernel(int* to, int count, int value) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) to[i] = value;
}

__global__ void CountKernel(int* counter) { atomicAdd(counter, 1); }

__global__ void TurnKernel(int* turns, int* order, int number) {
  if (threadIdx.x == 0) order[atomicAdd(turns, 1)] = number;
}

namespace testing {
namespace {

cudaLaunchConfig_t OneBlock(cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1);
  config.blockDim = dim3(64);
  config.stream = stream;
  return config;
}

}  // namespace

cudaError_t AddTo(int* values, int count, int add, cudaStream_t stream) {
  const cudaLaunchConfig_t config = OneBlock(stream);
  return cudaLaunchKernelEx(&config, AddKernel, values, count, add);
}

cudaError_t CopyInts(const int* from, int* to, int count, cudaStream_t stream) {
  const cudaLaunchConfig_t config = OneBlock(stream);
  return cudaLaunchKernelEx(&config, CopyKernel, from, to, count);
}

cudaError_t FillInts(int* to, int count, int value, cudaStream_t stream) {
  const cudaLaunchConfig_t config = OneBlock(stream);
  return cudaLaunchKernelEx(&config, FillKernel, to, count, value);
}

cudaError_t CountThreads(int* counter, cudaStream_t stream) {
  const cudaLaunchConfig_t config = OneBlock(stream);
  return cudaLaunchKernelEx(&config, CountKernel, counter);
}

cudaError_t TakeTurn(int* turns, int* order, int number, cudaStream_t stream) {
  const cudaLaunchConfig_t config = OneBlock(stream);
  return cudaLaunchKernelEx(&config, TurnKernel, turns, order, number);
}

}  // namespace testing
}  // namespace quern::kernels
