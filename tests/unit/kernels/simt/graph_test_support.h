#pragma once

#include "tests/unit/kernels/simt/stream_test_support.h"

namespace quern::kernels::testing {

class Executable {
 public:
  explicit Executable(cudaGraph_t graph) {
    EXPECT_EQ(cudaGraphInstantiate(&executable_, graph), cudaSuccess);
  }
  Executable(const Executable&) = delete;
  Executable& operator=(const Executable&) = delete;
  ~Executable() { EXPECT_EQ(cudaGraphExecDestroy(executable_), cudaSuccess); }
  operator cudaGraphExec_t() const { return executable_; }  // NOLINT: as it is used

 private:
  cudaGraphExec_t executable_ = nullptr;
};

// What fn asks of the stream, as a graph.
template <typename Fn>
cudaGraph_t CaptureIn(cudaStream_t stream, Fn fn) {
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  fn();
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  return graph;
}

}  // namespace quern::kernels::testing
