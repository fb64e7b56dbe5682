#include <gtest/gtest.h>

#include <random>

#include "kernels/cuda/sampling/sampling_launch.h"
#include "tests/unit/kernels/simt/simt_test_support.h"

namespace quern::kernels::testing {
namespace {

constexpr int kVocab = 32768;
constexpr int kBlocks = 4;

// One row's launches, each by itself.
class SamplingTraffic : public ::testing::Test {
 protected:
  static std::vector<float> Logits() {
    std::mt19937 random(5);
    std::normal_distribution<float> normal(0, 4);
    std::vector<float> logits(kVocab);
    for (float& logit : logits) logit = normal(random);
    return logits;
  }

  // The bytes that were read of anything but logits, which must be read once, in whole sectors.
  void ExpectLogitsOnce(int64_t others) {
    const simt::Counts& counts = simt::LastReport().counts;
    EXPECT_EQ(counts.global_load.bytes, kVocab * 4 + others) << simt::Text(simt::LastReport());
    EXPECT_LE(counts.global_load.units * 32 * 100, (kVocab * 4 + others) * 105)
        << simt::Text(simt::LastReport());
  }

  DeviceArray<float> logits_{Logits()};
  DeviceArray<SampleRow> params_{std::vector<SampleRow>{{1, 0.9f, 0, 50, 5, 6}}};
  DeviceArray<int32_t> ids_{1};
  DeviceArray<unsigned long long> maxima_{kBlocks}, bin_weights_{kBinsOfAll}, tile_weights_{16};
  DeviceArray<uint32_t> bin_counts_{kBinsOfAll}, tile_ties_{16};
  DeviceArray<CutState> states_{kCutSteps};
  DeviceArray<RankCut> cuts_{1};
  SampleLaunch launch_{logits_.data(),
                       kVocab,
                       kVocab,
                       1,
                       16,
                       kBlocks,
                       true,
                       true,
                       true,
                       params_.data(),
                       1,
                       ids_.data(),
                       maxima_.data(),
                       bin_weights_.data(),
                       bin_counts_.data(),
                       states_.data(),
                       cuts_.data(),
                       tile_weights_.data(),
                       tile_ties_.data()};
  WithOptions options_{simt::Options{.seed = 1, .count_traffic = true}};
};

TEST_F(SamplingTraffic, EachPassReadsEachLogitOnce) {
  ASSERT_EQ(StartSampleMax(launch_, true, nullptr), cudaSuccess);
  ExpectLogitsOnce(0);
  ASSERT_EQ(StartSampleCut(launch_, kFirst, nullptr), cudaSuccess);
  // Each thread reads the row's parameters, each block the maxima.
  ExpectLogitsOnce(kBlocks * (256 * sizeof(SampleRow) + kBlocks * 8));
}

TEST_F(SamplingTraffic, DrawReadsOneTile) {
  launch_.any_top_k = launch_.any_top_p = false;
  ASSERT_EQ(StartSampleMax(launch_, false, nullptr), cudaSuccess);
  ASSERT_EQ(StartSampleTiles(launch_, nullptr), cudaSuccess);
  ExpectLogitsOnce(kBlocks * (256 * sizeof(SampleRow) + kBlocks * 8));
  ASSERT_EQ(StartSampleDraw(launch_, nullptr), cudaSuccess);
  const simt::Counts& counts = simt::LastReport().counts;
  // The tile, the tiles' sums, ties before the tile, the maxima twice, and what all threads read.
  EXPECT_LE(counts.global_load.bytes, kSampleTile * 4 + 16 * 12 + 16 * 4 + 2 * kBlocks * 8 +
                                          256 * (sizeof(SampleRow) + sizeof(RankCut)));
}

}  // namespace
}  // namespace quern::kernels::testing
