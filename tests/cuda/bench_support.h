#pragma once

#include <functional>

#include "tests/cuda/device_support.h"
#include "tests/cuda/memory_bandwidth.h"

// What the benchmarks share.
namespace quern::kernels::testing {

inline constexpr int kReplays = 15;

// Microseconds of one call of `work(i)`, i = 0, 1, ... `calls` - 1 captured into a graph: the
// median over replays. Calls with different i use different memory, so that nothing is found in L2.
inline double MedianMicroseconds(cudaStream_t stream, int calls,
                                 const std::function<void(int)>& work) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  work(0);  // loads the kernel, which a capture must not do
  QUERN_CUDA_CHECK(cudaStreamSynchronize(stream));
  QUERN_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < calls; ++i) work(i);
  QUERN_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  QUERN_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
  cudaEvent_t begin;
  cudaEvent_t end;
  QUERN_CUDA_CHECK(cudaEventCreate(&begin));
  QUERN_CUDA_CHECK(cudaEventCreate(&end));
  std::vector<double> times;
  for (int i = 0; i < kReplays + 3; ++i) {
    QUERN_CUDA_CHECK(cudaEventRecord(begin, stream));
    QUERN_CUDA_CHECK(cudaGraphLaunch(executable, stream));
    QUERN_CUDA_CHECK(cudaEventRecord(end, stream));
    QUERN_CUDA_CHECK(cudaEventSynchronize(end));
    float milliseconds = 0;
    QUERN_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i >= 3) times.push_back(milliseconds * 1e3 / calls);
  }
  QUERN_CUDA_CHECK(cudaEventDestroy(begin));
  QUERN_CUDA_CHECK(cudaEventDestroy(end));
  QUERN_CUDA_CHECK(cudaGraphExecDestroy(executable));
  QUERN_CUDA_CHECK(cudaGraphDestroy(graph));
  std::nth_element(times.begin(), times.begin() + kReplays / 2, times.end());
  return times[kReplays / 2];
}

struct Bandwidth {
  double copy;  // GB/s, read and written
  double read;
};

// The best of the driver's copy and a kernel's, and a kernel that only reads. Printed as JSON.
inline Bandwidth MeasureMemory(cudaStream_t stream) {
  const size_t bytes = size_t{2} << 30;
  const DeviceMemory from(bytes);
  const DeviceMemory to(bytes);
  const auto driver = [&](int) {
    QUERN_CUDA_CHECK(cudaMemcpyAsync(to.As(), from.As(), bytes, cudaMemcpyDeviceToDevice, stream));
  };
  const auto kernel = [&](int) { StartCopy(from.As(), to.As(), bytes, stream); };
  const auto read = [&](int) { StartRead(from.As(), bytes, to.As(), stream); };
  for (int i = 0; i < 300; ++i) driver(0);  // some 0.5 s: clocks rise under load
  const double us =
      std::min(MedianMicroseconds(stream, 2, driver), MedianMicroseconds(stream, 2, kernel));
  const Bandwidth measured{2.0 * static_cast<double>(bytes) / us * 1e-3,
                           static_cast<double>(bytes) / MedianMicroseconds(stream, 2, read) * 1e-3};
  std::printf("{\"copy_gb_per_s\": %.1f, \"read_gb_per_s\": %.1f}\n", measured.copy, measured.read);
  return measured;
}

}  // namespace quern::kernels::testing
