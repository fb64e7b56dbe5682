#include <gtest/gtest.h>

#include <bit>

#include "tests/unit/kernels/simt/simt_test_support.h"
#include "tests/unit/kernels/simt/warp_kernels.h"

namespace quern::kernels::testing {
namespace {

constexpr uint64_t kSeeds = 6;

// What CUDA's guide says of each operation, lane by lane.
int Expected(WarpStep step, uint32_t mask, int argument, int width, const std::vector<int>& in,
             int lane) {
  const auto at = [&](int source) { return in[static_cast<size_t>(source)]; };
  const auto inside = [&](int source) {
    return source >= 0 && source / width == lane / width && source < 32;
  };
  uint32_t votes = 0;
  uint32_t same = 0;
  int sum = 0;
  int least = at(std::countr_zero(mask));
  int most = least;
  for (int i = 0; i < 32; ++i) {
    if ((mask >> i & 1) == 0) continue;
    if (at(i) > argument) votes |= 1u << i;
    if (at(i) == at(lane)) same |= 1u << i;
    sum += at(i);
    least = std::min(least, at(i));
    most = std::max(most, at(i));
  }
  switch (step) {
    case WarpStep::kShuffleIndex:
      return at(lane / width * width + argument % width);
    case WarpStep::kShuffleUp:
      return inside(lane - argument) ? at(lane - argument) : at(lane);
    case WarpStep::kShuffleDown:
      return inside(lane + argument) ? at(lane + argument) : at(lane);
    case WarpStep::kShuffleXor:
      return (lane ^ argument) / width <= lane / width ? at(lane ^ argument) : at(lane);
    case WarpStep::kBallot:
      return static_cast<int>(votes);
    case WarpStep::kAny:
      return votes != 0 ? 1 : 0;
    case WarpStep::kAll:
      return votes == mask ? 1 : 0;
    case WarpStep::kMatchAny:
      return static_cast<int>(same);
    case WarpStep::kReduceAdd:
      return sum;
    case WarpStep::kReduceMin:
      return least;
    case WarpStep::kReduceMax:
      return most;
  }
  return 0;
}

void Check(WarpStep step, uint32_t mask, int argument, int width) {
  std::vector<int> in(32);
  for (int i = 0; i < 32; ++i) in[static_cast<size_t>(i)] = i * 7 % 11 - 5;
  const DeviceArray<int> device_in(in);
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const WithOptions options(seed);
    const DeviceArray<int> out(std::vector<int>(32, -1000));
    ASSERT_EQ(RunWarpStep(step, mask, argument, width, device_in.data(), out.data()), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    for (int lane = 0; lane < 32; ++lane) {
      const bool present = (mask >> lane & 1) != 0;
      EXPECT_EQ(out.Read()[static_cast<size_t>(lane)],
                present ? Expected(step, mask, argument, width, in, lane) : -1000)
          << "step " << static_cast<int>(step) << " argument " << argument << " width " << width
          << " lane " << lane << " seed " << seed;
    }
  }
}

TEST(Warp, ShufflesWithinSegments) {
  for (int width : {32, 16, 4}) {
    for (int argument : {0, 1, 3, 5, 16}) {
      Check(WarpStep::kShuffleIndex, 0xffffffffu, argument, width);
      Check(WarpStep::kShuffleUp, 0xffffffffu, argument, width);
      Check(WarpStep::kShuffleDown, 0xffffffffu, argument, width);
      Check(WarpStep::kShuffleXor, 0xffffffffu, argument, width);
    }
  }
}

TEST(Warp, VotesMatchesAndReducesOverTheLanesOfAMask) {
  for (uint32_t mask : {0xffffffffu, 0x0000ffffu, 0x80000001u, 0x00f0f0f0u}) {
    for (WarpStep step : {WarpStep::kBallot, WarpStep::kAny, WarpStep::kAll, WarpStep::kMatchAny,
                          WarpStep::kReduceAdd, WarpStep::kReduceMin, WarpStep::kReduceMax}) {
      for (int argument : {-9, 0, 9}) Check(step, mask, argument, 32);
    }
  }
}

TEST(Barriers, NamedOnesPassNumbersFromWarpToWarp) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const WithOptions options(seed);
    for (int turns : {1, 2, 9}) {
      const DeviceArray<int> out(std::vector<int>{0});
      ASSERT_EQ(ProducerConsumer(turns, out.data()), cudaSuccess)
          << cudaGetErrorString(cudaErrorLaunchFailure);
      EXPECT_EQ(out.Read()[0], turns * 32 * (turns * 32 - 1) / 2);
    }
  }
}

TEST(Barriers, CountWhatTheThreadsBring) {
  const DeviceArray<int> out(75);
  ASSERT_EQ(CountOdd(out.data(), 75), cudaSuccess) << cudaGetErrorString(cudaErrorLaunchFailure);
  for (int count : out.Read()) EXPECT_EQ(count, 37);
}

// Lanes of one warp take the lock in turn: each thread has its own progress.
TEST(Atomics, ALockWithFencesOrdersThreadsOfAllBlocks) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const WithOptions options({.seed = seed, .resident_blocks = 3});
    const DeviceArray<int> lock(std::vector<int>{0});
    const DeviceArray<int> count(std::vector<int>{0});
    ASSERT_EQ(SpinLock(lock.data(), count.data(), 5, 64), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    EXPECT_EQ(count.Read()[0], 320);
  }
}

}  // namespace
}  // namespace quern::kernels::testing
