// Work in streams that waits for what no stream of this process does (kernels/simt/outside_work.h).
#include "kernels/simt/outside_work.h"

#include <atomic>
#include <cstdlib>
#include <thread>

#include "tests/unit/kernels/simt/stream_kernels.h"
#include "tests/unit/kernels/simt/stream_test_support.h"

namespace quern::kernels::testing {
namespace {

// Doubles the values once `come` says so.
simt::OutsideWork Doubles(int* values, std::atomic<bool>& come) {
  return {.name = "doubling",
          .may_begin = [&come] { return come.load(); },
          .reads = {{values, kIntBytes}},
          .writes = {{values, kIntBytes}},
          .run =
              [values] {
                for (int i = 0; i < kInts; ++i) values[i] *= 2;
              }};
}

TEST(OutsideWork, HasItsPlaceInTheStreamAndHoldsUpNoOther) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream waits;
    const Stream other;
    const DeviceArray<int> values(std::vector<int>(kInts, 1));
    const DeviceArray<int> others(std::vector<int>(kInts, 0));
    std::atomic<bool> come = false;
    ASSERT_EQ(AddTo(values.data(), kInts, 2, waits), cudaSuccess);
    ASSERT_EQ(simt::SubmitOutsideWork(waits, Doubles(values.data(), come)), cudaSuccess);
    ASSERT_EQ(AddTo(values.data(), kInts, 5, waits), cudaSuccess);
    ASSERT_EQ(AddTo(others.data(), kInts, 1, other), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(other), cudaSuccess);
    for (int i = 0; i < 50; ++i) ASSERT_EQ(cudaStreamQuery(waits), cudaErrorNotReady);
    std::thread outside([&] { come = true; });
    ASSERT_EQ(cudaStreamSynchronize(waits), cudaSuccess);
    outside.join();
    for (const int value : values.Read()) ASSERT_EQ(value, 11);
    for (const int value : others.Read()) ASSERT_EQ(value, 1);
  }
}

TEST(OutsideWork, IsRecordedInGraphs) {
  const Stream stream;
  const DeviceArray<int> values(std::vector<int>(kInts, 1));
  std::atomic<bool> come = true;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  ASSERT_EQ(simt::SubmitOutsideWork(stream, Doubles(values.data(), come)), cudaSuccess);
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  for (const int value : values.Read()) ASSERT_EQ(value, 8);
  ASSERT_EQ(cudaGraphExecDestroy(executable), cudaSuccess);
  ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
}

// Its reads and writes are checked as a copy's are.
TEST(OutsideWork, RacesWithAKernelOfAnotherStream) {
  const HostFault race{"OutsideWork", simt::Fault::kRace, {"doubling"}, [](bool faulty) {
                         const Stream a;
                         const Stream b;
                         const DeviceArray<int> values(std::vector<int>(kInts, 1));
                         std::atomic<bool> come = true;
                         EXPECT_EQ(AddTo(values.data(), kInts, 1, a), cudaSuccess);
                         if (!faulty) Order(a, b);
                         EXPECT_EQ(simt::SubmitOutsideWork(b, Doubles(values.data(), come)),
                                   cudaSuccess);
                         return cudaDeviceSynchronize();
                       }};
  ExpectFound(race);
  ExpectNothing(race);
}

TEST(Devices, AreAsManyAsTheEnvironmentSays) {
  int count = 0;
  ASSERT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  const char* wanted = std::getenv("QUERN_SIMT_DEVICES");
  EXPECT_EQ(count, wanted != nullptr ? std::atoi(wanted) : 1);
  EXPECT_EQ(cudaSetDevice(count), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaSetDevice(-1), cudaErrorInvalidDevice);
  for (int device = 0; device < count; ++device) {
    int current = -1;
    cudaDeviceProp properties;
    ASSERT_EQ(cudaSetDevice(device), cudaSuccess);
    ASSERT_EQ(cudaGetDevice(&current), cudaSuccess);
    EXPECT_EQ(current, device);
    ASSERT_EQ(cudaGetDeviceProperties(&properties, device), cudaSuccess);
    EXPECT_EQ(properties.uuid.bytes[15], device);
  }
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  static_cast<void>(cudaGetLastError());
}

}  // namespace
}  // namespace quern::kernels::testing
