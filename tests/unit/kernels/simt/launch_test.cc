#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <set>
#include <thread>

#include "tests/unit/kernels/simt/launch_kernels.h"
#include "tests/unit/kernels/simt/simt_test_support.h"

namespace quern::kernels::testing {
namespace {

std::vector<int> Numbers(int count) {
  std::vector<int> numbers(static_cast<size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 1);
  return numbers;
}

TEST(Launch, RunsEveryThreadOfEveryBlock) {
  for (uint64_t seed : {0, 1, 2}) {
    const WithOptions options(seed);
    DeviceArray<int> out(std::vector<int>(1000, -1));
    ASSERT_EQ(Scale(out.data(), 1000, 3, 8, 128), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    const std::vector<int> got = out.Read();
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(got[static_cast<size_t>(i)], 3 * i);
    EXPECT_EQ(simt::LastReport().counts.blocks, 8);
    EXPECT_EQ(simt::LastReport().counts.threads, 1024);
  }
}

TEST(Launch, BlocksHaveSharedMemoryOfTheirOwn) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const WithOptions options({.seed = seed, .resident_blocks = 3});
    const std::vector<int> in = Numbers(7 * 96);
    DeviceArray<int> device_in(in);
    DeviceArray<int> out(in.size());
    ASSERT_EQ(Reverse(device_in.data(), out.data(), 7, 96), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    const std::vector<int> got = out.Read();
    for (size_t i = 0; i < in.size(); ++i) {
      EXPECT_EQ(got[i], in[i / 96 * 96 + 95 - i % 96]) << i;
    }
  }
}

TEST(Launch, TreeSumsInStaticSharedMemory) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const WithOptions options(seed);
    const std::vector<int> in = Numbers(5 * 256);
    DeviceArray<int> device_in(in);
    DeviceArray<int> out(5);
    ASSERT_EQ(BlockSum(device_in.data(), out.data(), 5, 256), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    for (int b = 0; b < 5; ++b) {
      EXPECT_EQ(out.Read()[static_cast<size_t>(b)],
                std::accumulate(in.begin() + b * 256, in.begin() + (b + 1) * 256, 0));
    }
  }
}

TEST(Launch, SeedsGiveDifferentOrders) {
  std::set<std::vector<int>> orders;
  for (uint64_t seed = 0; seed < 6; ++seed) {
    std::vector<int> again;
    for (int run = 0; run < 2; ++run) {
      const WithOptions options(seed);
      DeviceArray<int> counter(std::vector<int>{0});
      DeviceArray<int> order(256);
      ASSERT_EQ(Arrivals(counter.data(), order.data(), 4, 64), cudaSuccess)
          << cudaGetErrorString(cudaErrorLaunchFailure);
      std::vector<int> got = order.Read();
      orders.insert(got);
      if (run == 1) {
        EXPECT_EQ(got, again) << "one seed, one order";
      }
      again = got;
      std::sort(got.begin(), got.end());
      std::vector<int> all(256);
      std::iota(all.begin(), all.end(), 0);
      EXPECT_EQ(got, all);
    }
  }
  EXPECT_EQ(orders.size(), 6u);
}

TEST(Launch, BlocksKeepTheirSharedMemoryWhileOthersRun) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const WithOptions options({.seed = seed, .resident_blocks = 3});
    const DeviceArray<int> counter(std::vector<int>{0});
    const DeviceArray<int> out(4 * 64);
    ASSERT_EQ(Keep(counter.data(), out.data(), 4, 64), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    EXPECT_EQ(counter.Read()[0], 4 * 64 * 16);
    const std::vector<int> got = out.Read();
    for (int i = 0; i < 4 * 64; ++i) {
      EXPECT_EQ(got[static_cast<size_t>(i)], i / 64 * 64 + (i % 64 + 1) % 64) << "seed " << seed;
    }
  }
}

// Launches take turns, but what the host does beside them goes on, in code that is instrumented,
// too.
TEST(Launch, MayComeFromSeveralThreadsOfTheHost) {
  std::vector<std::thread> threads;
  std::array<int, 3> failed{};
  for (size_t t = 0; t < failed.size(); ++t) {
    threads.emplace_back([&failed, t] {
      const std::vector<int> in = Numbers(2 * 256);
      for (int run = 0; run < 30; ++run) {
        const DeviceArray<int> device_in(in);
        const DeviceArray<int> out(2);
        const cudaError_t error = BlockSum(device_in.data(), out.data(), 2, 256);
        const int first = HostSum(in.data(), 256);
        const int second = HostSum(in.data() + 256, 256);
        if (error != cudaSuccess || out.Read() != std::vector<int>{first, second}) ++failed[t];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int count : failed) EXPECT_EQ(count, 0) << cudaGetErrorString(cudaErrorLaunchFailure);
}

TEST(Launch, RefusesBlocksThatNoDeviceTakes) {
  DeviceArray<int> out(16);
  EXPECT_EQ(Scale(out.data(), 16, 1, 1, 1025), cudaErrorLaunchFailure);
  EXPECT_EQ(simt::LastReport().errors.at(0).fault, simt::Fault::kBadLaunch);
  EXPECT_EQ(Scale(out.data(), 16, 1, 0, 32), cudaErrorLaunchFailure);
}

}  // namespace
}  // namespace quern::kernels::testing
