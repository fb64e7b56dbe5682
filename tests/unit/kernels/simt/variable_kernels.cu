#include "tests/unit/kernels/simt/start_kernel.h"
#include "tests/unit/kernels/simt/variable_kernels.h"

namespace quern::kernels {

__constant__ int table[testing::kTableInts];
__constant__ int factors[2] = {1, 10};
__device__ int calls = 5;

__global__ void UseTableKernel(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  out[i] = table[i % testing::kTableInts] * factors[i % 2];
  atomicAdd(&calls, 1);
}

__global__ void CountBadlyKernel() {
  calls += 1;  // fault
}

namespace testing {

cudaError_t SetTable(const int* values, cudaStream_t stream) {
  return cudaMemcpyToSymbolAsync(table, values, sizeof(table), 0, cudaMemcpyHostToDevice, stream);
}
cudaError_t SetTableAndWait(const int* values) {
  return cudaMemcpyToSymbol(table, values, sizeof(table));
}
cudaError_t UseTable(int* out, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(1);
  config.blockDim = dim3(64);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, UseTableKernel, out);
}
cudaError_t GetCalls(int* value) { return cudaMemcpyFromSymbol(value, calls, sizeof(int)); }
cudaError_t ResetCalls(int value) { return cudaMemcpyToSymbol(calls, &value, sizeof(int)); }
cudaError_t CountBadly() { return Start(CountBadlyKernel, 1, 64, 0); }
cudaError_t SetTooMuch(const int* values) {
  return cudaMemcpyToSymbol(table, values, sizeof(table), 4);
}
cudaError_t SetWhatIsNone(const int* values) {
  int local[2] = {};
  return cudaMemcpyToSymbol(local, values, sizeof(local));
}

}  // namespace testing
}  // namespace quern::kernels
