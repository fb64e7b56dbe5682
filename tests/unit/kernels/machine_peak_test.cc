#include "quern/kernels/machine_peak.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace quern::kernels::testing {
namespace {

// A loop that the compiler had shortened would sum up less.
TEST(MachinePeak, EveryLoopDoesTheOperationsThatItCounts) {
  for (const PeakKind kind : kAllPeakKinds) {
    if (!HasPeak(kind)) continue;
    for (const int64_t iterations : {0, 1, 7, 1000}) {
      const PeakRun run = RunPeakLoop(kind, iterations);
      EXPECT_EQ(run.sum, static_cast<double>(run.operations) / 2) << PeakKindName(kind);
      EXPECT_EQ(run.operations > 0, iterations > 0);
      EXPECT_EQ(run.operations, iterations * RunPeakLoop(kind, 1).operations);
    }
  }
}

TEST(MachinePeak, EveryWordIsRead) {
  for (const size_t count : {0, 1, 31, 32, 33, 1000}) {
    std::vector<uint64_t> words(count);
    std::iota(words.begin(), words.end(), ~uint64_t{0} - 10);  // wraps around
    EXPECT_EQ(SumWords(words.data(), count),
              std::accumulate(words.begin(), words.end(), uint64_t{0}))
        << count;
  }
}

}  // namespace
}  // namespace quern::kernels::testing
