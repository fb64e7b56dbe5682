#include <gtest/gtest.h>

#include "tests/unit/kernels/simt/library_kernels.h"
#include "tests/unit/kernels/simt/simt_test_support.h"

namespace quern::kernels::testing {
namespace {

constexpr uint64_t kSeeds = 4;

TEST(CooperativeGroups, GiveWhatTheirLanesBring) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    for (int size : {4, 32}) {
      const WithOptions options(seed);
      const DeviceArray<GroupResults> results(64);
      ASSERT_EQ(UseGroups(size, results.data()), cudaSuccess)
          << cudaGetErrorString(cudaErrorLaunchFailure);
      const std::vector<GroupResults> got = results.Read();
      for (int i = 0; i < 64; ++i) {
        const GroupResults& one = got[static_cast<size_t>(i)];
        const int first = i / size * size;
        const int last = first + size - 1;
        const auto square = [](int n) { return n * n; };
        EXPECT_EQ(one.rank, i - first);
        EXPECT_EQ(one.size, size);
        EXPECT_EQ(one.group, i / size);
        EXPECT_EQ(one.groups, 64 / size);
        EXPECT_EQ(one.from_second, square(first + 1));
        EXPECT_EQ(one.from_before, square(i == first ? i : i - 1));
        EXPECT_EQ(one.from_after, square(i == last ? i : i + 1));
        EXPECT_EQ(one.from_partner, square(i ^ 2));
        unsigned votes = 0;
        for (int lane = 0; lane < size; ++lane) {
          if (square(first + lane) % 3 == 0) votes |= 1u << lane;
        }
        EXPECT_EQ(one.votes, votes);
        EXPECT_EQ(one.any, first == 0 ? 1 : 0);
        EXPECT_EQ(one.all, last < 16 ? 1 : 0);
        EXPECT_EQ(one.block_rank, i);
        EXPECT_EQ(one.block_size, 64);
        EXPECT_EQ(one.sum, 63 * 64 * 127 / 6);
      }
    }
  }
}

TEST(AtomicRef, DoesWhatItsNamesSay) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const WithOptions options(seed);
    const DeviceArray<int> values(std::vector<int>{0, -1, 1000, 0, 0, 0});
    ASSERT_EQ(UseAtomicRefs(values.data()), cudaSuccess)
        << cudaGetErrorString(cudaErrorLaunchFailure);
    EXPECT_EQ(values.Read(), (std::vector<int>{255 * 256 / 2, 255, 0, 255, 7, 1}));
  }
}

}  // namespace
}  // namespace quern::kernels::testing
