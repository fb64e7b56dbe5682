#include <thread>

#include "tests/unit/kernels/simt/graph_test_support.h"
#include "tests/unit/kernels/simt/stream_kernels.h"

// What a capture does not allow, and the errors that CUDA has for it.
namespace quern::kernels::testing {
namespace {

class Captures : public ::testing::Test {
 protected:
  // Begins a capture, lets fn do what is wrong, and ends it with no graph.
  template <typename Fn>
  void Expect(cudaStream_t stream, cudaError_t at_end, Fn fn) {
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    ASSERT_EQ(FillInts(values_.data(), kInts, 1, stream), cudaSuccess);
    fn();
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), at_end);
    EXPECT_EQ(graph, nullptr);
    cudaStreamCaptureStatus status;
    EXPECT_EQ(cudaStreamIsCapturing(stream, &status), cudaSuccess);
    EXPECT_EQ(status, cudaStreamCaptureStatusNone);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  }

  DeviceArray<int> values_{std::vector<int>(kInts, 0)};
};

TEST_F(Captures, DoNotWait) {
  const Stream stream;
  Expect(stream, cudaErrorStreamCaptureInvalidated, [&] {
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
    EXPECT_EQ(FillInts(values_.data(), kInts, 1, stream), cudaErrorStreamCaptureInvalidated);
    cudaStreamCaptureStatus status;
    EXPECT_EQ(cudaStreamIsCapturing(stream, &status), cudaSuccess);
    EXPECT_EQ(status, cudaStreamCaptureStatusInvalidated);
  });
  Expect(stream, cudaErrorStreamCaptureInvalidated,
         [&] { EXPECT_EQ(cudaStreamQuery(stream), cudaErrorStreamCaptureUnsupported); });
  Expect(stream, cudaErrorStreamCaptureInvalidated,
         [&] { EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorStreamCaptureUnsupported); });
}

TEST_F(Captures, SeeNoCallsOutsideOfStreams) {
  const Stream stream;
  void* memory = nullptr;
  std::vector<int> host(1);
  Expect(stream, cudaErrorStreamCaptureInvalidated,
         [&] { EXPECT_EQ(cudaMalloc(&memory, 4), cudaErrorStreamCaptureUnsupported); });
  Expect(stream, cudaErrorStreamCaptureInvalidated, [&] {
    EXPECT_EQ(cudaMemcpy(host.data(), values_.data(), 4, cudaMemcpyDeviceToHost),
              cudaErrorStreamCaptureUnsupported);
  });
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&memory, 4), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(host.data(), values_.data(), 4, cudaMemcpyDeviceToHost), cudaSuccess);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaFree(memory), cudaSuccess);
}

TEST_F(Captures, KeepTheDefaultStreamAway) {
  const Stream blocking(cudaStreamDefault);
  Expect(blocking, cudaErrorStreamCaptureInvalidated, [&] {
    EXPECT_EQ(FillInts(values_.data(), kInts, 1, nullptr), cudaErrorStreamCaptureImplicit);
  });
  EXPECT_EQ(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal),
            cudaErrorStreamCaptureUnsupported);
}

TEST_F(Captures, JoinStreamsByTheirEventsOnly) {
  const Stream stream;
  const Stream other;
  const Event before;
  ASSERT_EQ(cudaEventRecord(before, other), cudaSuccess);
  Expect(stream, cudaErrorStreamCaptureInvalidated,
         [&] { EXPECT_EQ(cudaStreamWaitEvent(stream, before), cudaErrorStreamCaptureIsolation); });
  const Event event;
  Expect(stream, cudaErrorStreamCaptureUnjoined, [&] {
    EXPECT_EQ(cudaEventRecord(event, stream), cudaSuccess);
    EXPECT_EQ(cudaStreamWaitEvent(other, event), cudaSuccess);
    EXPECT_EQ(FillInts(values_.data(), kInts, 2, other), cudaSuccess);
    EXPECT_EQ(cudaStreamBeginCapture(other, cudaStreamCaptureModeGlobal), cudaErrorIllegalState);
  });
  Expect(stream, cudaErrorStreamCaptureInvalidated, [&] {
    EXPECT_EQ(cudaEventRecord(event, stream), cudaSuccess);
    EXPECT_EQ(cudaEventQuery(event), cudaErrorCapturedEvent);
  });
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorIllegalState);
}

TEST_F(Captures, EndInTheirStreamAndThread) {
  const Stream stream;
  const Stream other;
  Expect(stream, cudaErrorStreamCaptureInvalidated, [&] {
    Order(stream, other);
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(other, &graph), cudaErrorStreamCaptureUnmatched);
  });
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  std::thread([&] {
    cudaGraph_t graph = nullptr;
    void* memory = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureWrongThread);
    EXPECT_EQ(cudaMalloc(&memory, 4), cudaErrorStreamCaptureUnsupported);
  }).join();
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
}

// What the emulator has not, though CUDA has.
TEST_F(Captures, RefuseMemoryNodesAndChildGraphs) {
  const Stream stream;
  void* memory = nullptr;
  Expect(stream, cudaErrorStreamCaptureInvalidated, [&] {
    EXPECT_EQ(cudaMallocAsync(&memory, 4, stream), cudaErrorNotSupported);
    EXPECT_EQ(memory, nullptr);
  });
  const cudaGraph_t graph = CaptureIn(
      stream, [&] { EXPECT_EQ(FillInts(values_.data(), kInts, 1, stream), cudaSuccess); });
  const Executable executable(graph);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  Expect(stream, cudaErrorStreamCaptureInvalidated,
         [&] { EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaErrorNotSupported); });
}

TEST_F(Captures, DoNotMeet) {
  const Stream a;
  const Stream b;
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(a, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(b, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  const Event event;
  ASSERT_EQ(cudaEventRecord(event, a), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(b, event), cudaErrorStreamCaptureMerge);
  EXPECT_EQ(cudaStreamEndCapture(a, &graph), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaStreamEndCapture(b, &graph), cudaErrorStreamCaptureInvalidated);
}

}  // namespace
}  // namespace quern::kernels::testing
