#include "tests/unit/kernels/simt/graph_test_support.h"
#include "tests/unit/kernels/simt/stream_kernels.h"
#include "tests/unit/kernels/simt/stream_test_support.h"

namespace quern::kernels::testing {
namespace {

using simt::Fault;

std::vector<int> Zeros() { return std::vector<int>(kInts, 0); }

TEST(Graphs, DoWhatWasCapturedEachTimeTheyAreLaunched) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream stream;
    const DeviceArray<int> in(kInts);
    const DeviceArray<int> values(Zeros());
    const PinnedArray<int> input(kInts);
    const PinnedArray<int> output(kInts);
    const cudaGraph_t graph = CaptureIn(stream, [&] {
      EXPECT_EQ(cudaMemcpyAsync(in.data(), input.data(), kIntBytes, cudaMemcpyDefault, stream),
                cudaSuccess);
      EXPECT_EQ(CopyInts(in.data(), values.data(), kInts, stream), cudaSuccess);
      EXPECT_EQ(AddTo(values.data(), kInts, 2, stream), cudaSuccess);
      EXPECT_EQ(cudaMemcpyAsync(output.data(), values.data(), kIntBytes, cudaMemcpyDefault, stream),
                cudaSuccess);
    });
    EXPECT_EQ(values.Read(), Zeros()) << "a capture does nothing";
    size_t nodes = 0;
    EXPECT_EQ(cudaGraphGetNodes(graph, nullptr, &nodes), cudaSuccess);
    EXPECT_EQ(nodes, 4u);
    const Executable executable(graph);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    for (int step = 0; step < 4; ++step) {
      std::fill(input.data(), input.data() + kInts, 10 * step);
      ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
      ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess)
          << cudaGetErrorString(cudaErrorLaunchFailure);
      EXPECT_EQ(output[0], 10 * step + 2);
      EXPECT_EQ(output[kInts - 1], 10 * step + 2);
    }
  }
}

struct Step {
  const int* result;
  std::vector<int> seen;
};
void NoteResult(void* argument) {
  auto* step = static_cast<Step*>(argument);
  step->seen.push_back(*step->result);
}

// A host function in a graph sees what was copied before it, at each launch.
TEST(Graphs, CallHostFunctions) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream stream;
    const DeviceArray<int> values(Zeros());
    const PinnedArray<int> result(1);
    Step step{result.data(), {}};
    const cudaGraph_t graph = CaptureIn(stream, [&] {
      EXPECT_EQ(AddTo(values.data(), kInts, 5, stream), cudaSuccess);
      EXPECT_EQ(cudaMemcpyAsync(result.data(), values.data(), 4, cudaMemcpyDefault, stream),
                cudaSuccess);
      EXPECT_EQ(cudaLaunchHostFunc(stream, NoteResult, &step), cudaSuccess);
    });
    const Executable executable(graph);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    for (int launch = 0; launch < 3; ++launch) {
      ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    }
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    EXPECT_EQ(step.seen, (std::vector<int>{5, 10, 15}));
  }
}

// Two branches from one fork to one join.
cudaGraph_t CaptureFork(const Stream& stream, const Stream& side, int* left, int* right, int* out) {
  return CaptureIn(stream, [&] {
    Order(stream, side);  // before anything else: both begin the graph
    EXPECT_EQ(FillInts(left, kInts, 1, stream), cudaSuccess);
    EXPECT_EQ(FillInts(right, kInts, 2, side), cudaSuccess);
    EXPECT_EQ(AddTo(left, kInts, 3, stream), cudaSuccess);
    Order(side, stream);
    EXPECT_EQ(CopyInts(left, out, kInts, stream), cudaSuccess);
    EXPECT_EQ(CopyInts(right, out + kInts, kInts, stream), cudaSuccess);
  });
}

TEST(Graphs, KeepTheOrderOfTheirBranches) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream stream;
    const Stream side;
    const DeviceArray<int> left(kInts);
    const DeviceArray<int> right(kInts);
    const DeviceArray<int> out(2 * kInts);
    const cudaGraph_t graph = CaptureFork(stream, side, left.data(), right.data(), out.data());
    const Executable executable(graph);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
    for (int launch = 0; launch < 3; ++launch) {
      // One after the other, in whichever stream.
      ASSERT_EQ(cudaGraphLaunch(executable, launch % 2 == 0 ? stream : side), cudaSuccess);
    }
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess) << cudaGetErrorString(cudaErrorLaunchFailure);
    const std::vector<int> got = out.Read();
    for (int i = 0; i < 2 * kInts; ++i) {
      ASSERT_EQ(got[static_cast<size_t>(i)], i < kInts ? 4 : 2);
    }
  }
}

TEST(Graphs, TakeNewArgumentsButNoNewShape) {
  const Stream stream;
  const Stream side;
  const DeviceArray<int> values(Zeros());
  const auto capture = [&](int add, int kernels) {
    return CaptureIn(stream, [&] {
      for (int i = 0; i < kernels; ++i) {
        EXPECT_EQ(AddTo(values.data(), kInts, add, stream), cudaSuccess);
      }
    });
  };
  const cudaGraph_t first = capture(1, 2);
  const cudaGraph_t second = capture(10, 2);
  const cudaGraph_t longer = capture(10, 3);
  const cudaGraph_t other = CaptureIn(stream, [&] {
    EXPECT_EQ(AddTo(values.data(), kInts, 1, stream), cudaSuccess);
    EXPECT_EQ(cudaMemsetAsync(values.data(), 0, 4, stream), cudaSuccess);
  });
  const Executable executable(first);
  cudaGraphExecUpdateResultInfo info;
  ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
  ASSERT_EQ(cudaGraphExecUpdate(executable, second, &info), cudaSuccess);
  EXPECT_EQ(info.result, cudaGraphExecUpdateSuccess);
  ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
  EXPECT_EQ(cudaGraphExecUpdate(executable, longer, &info), cudaErrorGraphExecUpdateFailure);
  EXPECT_EQ(info.result, cudaGraphExecUpdateErrorTopologyChanged);
  EXPECT_EQ(cudaGraphExecUpdate(executable, other, &info), cudaErrorGraphExecUpdateFailure);
  EXPECT_EQ(info.result, cudaGraphExecUpdateErrorNodeTypeChanged);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess)
      << cudaGetErrorString(cudaErrorLaunchFailure);
  EXPECT_EQ(values.Read(), std::vector<int>(kInts, 22));
  for (cudaGraph_t graph : {first, second, longer, other}) {
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  }
}

// --- Faults.

cudaError_t ArgumentPointsToFreedMemory(bool faulty) {
  const Stream stream;
  int* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, kIntBytes), cudaSuccess);
  const cudaGraph_t graph =
      CaptureIn(stream, [&] { EXPECT_EQ(FillInts(memory, kInts, 1, stream), cudaSuccess); });
  const Executable executable(graph);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  if (faulty) {
    EXPECT_EQ(cudaFree(memory), cudaSuccess);
  }
  // One of the same size, which an allocator would gladly put in the same place.
  const DeviceArray<int> another(kInts);
  EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
  const cudaError_t error = cudaStreamSynchronize(stream);
  if (!faulty) {
    EXPECT_EQ(cudaFree(memory), cudaSuccess);
  }
  return error;
}

cudaError_t BranchesRace(bool faulty) {
  const Stream stream;
  const Stream side;
  const DeviceArray<int> left(kInts);
  const DeviceArray<int> right(kInts);
  const DeviceArray<int> out(2 * kInts);
  const cudaGraph_t graph =
      CaptureFork(stream, side, left.data(), faulty ? left.data() : right.data(), out.data());
  const Executable executable(graph);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
  return cudaStreamSynchronize(stream);
}

// The host writes the next step's input while the graph may still read this one's.
cudaError_t InputChangesWhileTheGraphRuns(bool faulty) {
  const Stream stream;
  const DeviceArray<int> in(kInts);
  const PinnedArray<int> input(kInts);
  const cudaGraph_t graph = CaptureIn(stream, [&] {
    EXPECT_EQ(cudaMemcpyAsync(in.data(), input.data(), kIntBytes, cudaMemcpyDefault, stream),
              cudaSuccess);
  });
  const Executable executable(graph);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  for (int step = 0; step < 2; ++step) {
    input[17] = step;
    EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    if (!faulty) {
      EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    }
  }
  return cudaStreamSynchronize(stream);
}

cudaError_t GraphRacesWithAnotherStream(bool faulty) {
  const Stream stream;
  const Stream other;
  const DeviceArray<int> values(Zeros());
  const cudaGraph_t graph =
      CaptureIn(stream, [&] { EXPECT_EQ(AddTo(values.data(), kInts, 1, stream), cudaSuccess); });
  const Executable executable(graph);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
  if (!faulty) Order(stream, other);
  EXPECT_EQ(AddTo(values.data(), kInts, 1, other), cudaSuccess);
  return cudaDeviceSynchronize();
}

std::vector<HostFault> GraphFaults() {
  return {
      {"ArgumentPointsToFreedMemory",
       Fault::kUseAfterFree,
       {"cudaFree ", "has freed", "FillKernel"},
       ArgumentPointsToFreedMemory},
      {"BranchesRace", Fault::kRace, {"branch 1", "branch 2"}, BranchesRace},
      {"InputChangesWhileTheGraphRuns",
       Fault::kHostMemory,
       {"was written at tests/unit/", "cudaMemcpyAsync"},
       InputChangesWhileTheGraphRuns},
      {"GraphRacesWithAnotherStream",
       Fault::kRace,
       {"AddKernel", "graph "},
       GraphRacesWithAnotherStream},
  };
}

class GraphOrder : public ::testing::TestWithParam<HostFault> {};
TEST_P(GraphOrder, FaultIsFoundUnderEverySeed) { ExpectFound(GetParam()); }
TEST_P(GraphOrder, NothingIsSaidWithoutTheFault) { ExpectNothing(GetParam()); }
INSTANTIATE_TEST_SUITE_P(Faults, GraphOrder, ::testing::ValuesIn(GraphFaults()), NameOfFault);

}  // namespace
}  // namespace quern::kernels::testing
