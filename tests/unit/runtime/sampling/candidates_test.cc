#include "runtime/sampling/candidates.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace quern {
namespace {

class CandidatesTest : public testing::Test {
 protected:
  void Collect(const std::vector<float>& logits, float threshold) {
    std::vector<float> chunk_max(NumScanChunks(logits.size()));
    ASSERT_TRUE(scan_.ChunkMax(logits, chunk_max));
    candidates_.Clear();
    candidates_.Collect(logits, chunk_max, threshold);
  }
  std::vector<int32_t> Ids() const { return {candidates_.ids().begin(), candidates_.ids().end()}; }

  LogitScan scan_;
  Candidates candidates_;
};

TEST_F(CandidatesTest, CollectsEveryTokenAtOrAboveTheThresholdInOrderOfIds) {
  std::vector<float> logits(200, -5.0f);
  logits[3] = 1.0f;
  logits[64] = 0.5f;
  logits[199] = 2.0f;
  logits[70] = 0.49f;
  Collect(logits, 0.5f);
  EXPECT_EQ(Ids(), (std::vector<int32_t>{3, 64, 199}));
}

TEST_F(CandidatesTest, TheTopKReachTheKthGreatestMaximumHoweverManyThatAre) {
  std::vector<float> maxima(300);
  for (size_t i = 0; i < maxima.size(); ++i) maxima[i] = static_cast<float>(i * 7 % 300 / 2);
  for (const size_t k : {1u, 2u, 63u, 64u, 65u, 299u, 300u}) {
    auto sorted = maxima;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    EXPECT_EQ(candidates_.ReachedByTopK(maxima, k), sorted[k - 1]) << k;
  }
  EXPECT_EQ(candidates_.ReachedByTopK(maxima, 301), -std::numeric_limits<float>::infinity());
}

TEST_F(CandidatesTest, TopKKeepsExactlyKAndPrefersTheLowerIdAmongEquals) {
  Collect({1, 3, 2, 3, 3, 0}, -10);
  candidates_.KeepTopK(2);
  EXPECT_EQ(Ids(), (std::vector<int32_t>{1, 3}));
  Collect({1, 3, 2, 3, 3, 0}, -10);
  candidates_.KeepTopK(4);
  EXPECT_EQ(Ids(), (std::vector<int32_t>{1, 2, 3, 4}));
  candidates_.KeepTopK(100);
  EXPECT_EQ(candidates_.size(), 4u);
}

TEST_F(CandidatesTest, TopPKeepsTheFewestThatReachTheMass) {
  const auto log_of = [](double p) { return static_cast<float>(std::log(p)); };
  const std::vector<float> logits = {log_of(0.1), log_of(0.4), log_of(0.2), log_of(0.25),
                                     log_of(0.05)};
  const auto kept = [&](double mass) {
    Collect(logits, -100);
    candidates_.Weigh(scan_, 0, 1);
    candidates_.KeepTopP(mass);
    return Ids();
  };
  EXPECT_EQ(kept(1e-9), (std::vector<int32_t>{1}));
  EXPECT_EQ(kept(0.39), (std::vector<int32_t>{1}));
  EXPECT_EQ(kept(0.41), (std::vector<int32_t>{1, 3}));
  EXPECT_EQ(kept(0.8), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(kept(0.94), (std::vector<int32_t>{0, 1, 2, 3}));
  EXPECT_EQ(kept(2.0), (std::vector<int32_t>{0, 1, 2, 3, 4})) << "more than there is keeps all";
}

TEST_F(CandidatesTest, CutsLargeSetsAsAFullSortWould) {
  std::mt19937 random(3);
  for (const float spread : {0.0f, 0.5f, 20.0f}) {
    std::vector<float> logits(20000);
    for (float& logit : logits) {
      // A coarse grid, so that many are equal and ids must break the ties.
      logit = std::round(static_cast<float>(random() % 1000)) * 0.001f * spread;
    }
    logits[777] = -3e38f;  // a range that leaves nearly all in one bucket
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    for (const float floor : {std::numeric_limits<float>::lowest(), -100.0f}) {
      for (const size_t k : {1u, 50u, 9999u, 19998u}) {
        Collect(logits, floor);
        candidates_.Weigh(scan_, spread, 1);
        const Candidates before = candidates_;
        candidates_.KeepTopK(k);
        std::vector<int32_t> expected(order.begin(),
                                      order.begin() + static_cast<std::ptrdiff_t>(k));
        std::sort(expected.begin(), expected.end());
        ASSERT_EQ(Ids(), expected) << spread << " " << k;
        // The mass of the first k, less half of the last one's weight, takes the same k.
        const double mass = candidates_.TotalWeight();
        const double last = std::exp(logits[static_cast<size_t>(order[k - 1])] - spread);
        candidates_ = before;
        candidates_.KeepTopP(mass - last / 2);
        ASSERT_EQ(Ids(), expected) << spread << " " << k;
      }
    }
  }
}

TEST_F(CandidatesTest, PickWalksTheWeightsInOrderOfIds) {
  Collect({0, 0, 0, 0}, -1);
  candidates_.Weigh(scan_, 0, 1);
  EXPECT_EQ(candidates_.Pick(0.0), 0);
  EXPECT_EQ(candidates_.Pick(0.26), 1);
  EXPECT_EQ(candidates_.Pick(0.74), 2);
  EXPECT_EQ(candidates_.Pick(1.0 - 1e-16), 3);
}

TEST_F(CandidatesTest, PickNeverChoosesATokenWithoutWeight) {
  Collect({-1000, 0, -1000}, -2000);
  candidates_.Weigh(scan_, 0, 1);
  EXPECT_EQ(candidates_.Pick(0.0), 1);
  EXPECT_EQ(candidates_.Pick(1.0 - 1e-16), 1);
}

}  // namespace
}  // namespace quern
