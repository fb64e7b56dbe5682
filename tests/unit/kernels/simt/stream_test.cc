#include <array>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "tests/unit/kernels/simt/stream_kernels.h"
#include "tests/unit/kernels/simt/stream_test_support.h"

namespace quern::kernels::testing {
namespace {

std::vector<int> Zeros() { return std::vector<int>(kInts, 0); }

TEST(Streams, TakeTurnsInAnOrderOfTheSeeds) {
  std::set<std::vector<int>> orders;
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    std::vector<int> before;
    for (int run = 0; run < 2; ++run) {
      const WithOptions options(seed);
      const Stream a;
      const Stream b;
      const DeviceArray<int> turns(std::vector<int>{0});
      const DeviceArray<int> order(8);
      for (int i = 0; i < 8; ++i) {
        ASSERT_EQ(TakeTurn(turns.data(), order.data(), i, i % 2 == 0 ? a : b), cudaSuccess);
      }
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess) << cudaGetErrorString(cudaErrorLaunchFailure);
      const std::vector<int> got = order.Read();
      std::vector<int> last{-1, -1};
      for (int number : got) {
        EXPECT_GT(number, last[static_cast<size_t>(number % 2)]) << "a stream's own order";
        last[static_cast<size_t>(number % 2)] = number;
      }
      if (run == 1) {
        EXPECT_EQ(got, before) << "one seed, one order";
      }
      before = got;
      orders.insert(got);
    }
  }
  EXPECT_GT(orders.size(), 4u);
}

TEST(Streams, EventsOrderThem) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream a;
    const Stream b;
    const DeviceArray<int> values(Zeros());
    for (int i = 0; i < 6; ++i) {
      ASSERT_EQ(AddTo(values.data(), kInts, 1 << i, i % 2 == 0 ? a : b), cudaSuccess);
      Order(i % 2 == 0 ? a : b, i % 2 == 0 ? b : a);
    }
    PinnedArray<int> host(kInts);
    ASSERT_EQ(cudaMemcpyAsync(host.data(), values.data(), kIntBytes, cudaMemcpyDeviceToHost, a),
              cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(a), cudaSuccess) << cudaGetErrorString(cudaErrorLaunchFailure);
    for (size_t i = 0; i < kInts; ++i) ASSERT_EQ(host[i], 63);
  }
}

TEST(Streams, WorkWaitsUntilTheHostDoes) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream stream;
    const DeviceArray<int> values(Zeros());
    const Event start(cudaEventDefault);
    const Event end(cudaEventDefault);
    float milliseconds = -1;
    EXPECT_EQ(cudaEventQuery(start), cudaSuccess) << "never recorded";
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorInvalidResourceHandle);
    ASSERT_EQ(cudaEventRecord(start, stream), cudaSuccess);
    for (int i = 0; i < 10; ++i) ASSERT_EQ(AddTo(values.data(), kInts, 1, stream), cudaSuccess);
    ASSERT_EQ(cudaEventRecord(end, stream), cudaSuccess);
    EXPECT_EQ(cudaEventQuery(end), cudaErrorNotReady);
    EXPECT_EQ(cudaStreamQuery(stream), cudaErrorNotReady);
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorNotReady);
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidResourceHandle) << "not ready is no error";
    int polls = 0;
    while (cudaStreamQuery(stream) == cudaErrorNotReady) ++polls;
    EXPECT_GT(polls, 5);
    EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, end), cudaSuccess);
    EXPECT_GE(milliseconds, 0);
    EXPECT_EQ(values.Read(), std::vector<int>(kInts, 10));
  }
}

TEST(Streams, AreRefusedWhenTheyAreGone) {
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaStreamDestroy(nullptr), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaStreamCreateWithFlags(&stream, 8), cudaErrorInvalidValue);
  const DeviceArray<int> values(kInts);
  EXPECT_EQ(FillInts(values.data(), kInts, 1, stream), cudaErrorInvalidResourceHandle);
}

TEST(Streams, MayBeDestroyedWithWorkInThem) {
  const DeviceArray<int> values(Zeros());
  {
    const Stream stream(cudaStreamDefault);
    ASSERT_EQ(AddTo(values.data(), kInts, 5, stream), cudaSuccess);
  }
  EXPECT_EQ(values.Read(), std::vector<int>(kInts, 5));
}

void Nothing(void* /*argument*/) {}

// Each thread of the host has a stream of its own; what one waits for, others may run.
TEST(Streams, MayComeFromSeveralThreadsOfTheHost) {
  std::vector<std::thread> threads;
  std::array<int, 3> failed{};
  for (size_t t = 0; t < failed.size(); ++t) {
    threads.emplace_back([&failed, t] {
      const Stream stream;
      const DeviceArray<int> values(Zeros());
      const PinnedArray<int> host(kInts);
      for (int round = 1; round <= 20; ++round) {
        bool right = AddTo(values.data(), kInts, 1, stream) == cudaSuccess;
        right = right && cudaLaunchHostFunc(stream, Nothing, nullptr) == cudaSuccess;
        right = right && cudaMemcpyAsync(host.data(), values.data(), kIntBytes, cudaMemcpyDefault,
                                         stream) == cudaSuccess;
        right = right && cudaStreamSynchronize(stream) == cudaSuccess;
        if (!right || host[0] != round || host[kInts - 1] != round) ++failed[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int count : failed) EXPECT_EQ(count, 0) << cudaGetErrorString(cudaErrorLaunchFailure);
}

// --- Host functions.

struct Signal {
  std::mutex mutex;
  std::condition_variable changed;
  bool set = false;
  const int* result = nullptr;
  int seen = 0;
};
void SetSignal(void* argument) {
  auto* signal = static_cast<Signal*>(argument);
  const std::lock_guard lock(signal->mutex);
  signal->set = true;
  if (signal->result != nullptr) signal->seen = *signal->result;
  signal->changed.notify_all();
}

// The host calls nothing of the runtime's while it waits.
TEST(HostFunctions, RunThoughTheHostOnlyWaitsForThem) {
  for (uint64_t seed = 0; seed < 3; ++seed) {
    const WithOptions options(seed);
    const Stream stream;
    const DeviceArray<int> values(Zeros());
    const PinnedArray<int> result(1);
    Signal signal;
    signal.result = result.data();
    ASSERT_EQ(AddTo(values.data(), kInts, 9, stream), cudaSuccess);
    ASSERT_EQ(cudaMemcpyAsync(result.data(), values.data(), 4, cudaMemcpyDeviceToHost, stream),
              cudaSuccess);
    ASSERT_EQ(cudaLaunchHostFunc(stream, SetSignal, &signal), cudaSuccess);
    std::unique_lock lock(signal.mutex);
    signal.changed.wait(lock, [&signal] { return signal.set; });
    EXPECT_EQ(signal.seen, 9) << "the copy came before";
    lock.unlock();
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
  }
}

void CallTheRuntime(void* argument) {
  *static_cast<cudaError_t*>(argument) = cudaDeviceSynchronize();
}

TEST(HostFunctions, MayNotCallTheRuntime) {
  cudaError_t error = cudaSuccess;
  ASSERT_EQ(cudaLaunchHostFunc(nullptr, CallTheRuntime, &error), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(error, cudaErrorNotPermitted);
}

struct Refill {
  int* memory;
  int value;
};
void FillAll(void* argument) {
  const auto* refill = static_cast<const Refill*>(argument);
  std::fill(refill->memory, refill->memory + kInts, refill->value);
}

// A host function between copies may use their memory: it is in the stream's order.
TEST(HostFunctions, MayChangeWhatIsCopiedAfterThem) {
  for (uint64_t seed = 0; seed < kStreamSeeds; ++seed) {
    const WithOptions options(seed);
    const Stream stream;
    const PinnedArray<int> staging(kInts);
    const DeviceArray<int> target(3 * kInts);
    Refill refills[3];
    for (int i = 0; i < 3; ++i) {
      refills[i] = {staging.data(), i + 1};
      ASSERT_EQ(cudaLaunchHostFunc(stream, FillAll, &refills[i]), cudaSuccess);
      ASSERT_EQ(cudaMemcpyAsync(target.data() + i * kInts, staging.data(), kIntBytes,
                                cudaMemcpyHostToDevice, stream),
                cudaSuccess);
    }
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    const std::vector<int> got = target.Read();
    for (size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i], static_cast<int>(i / kInts) + 1) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace quern::kernels::testing
