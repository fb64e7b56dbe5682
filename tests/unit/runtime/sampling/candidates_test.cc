#include "runtime/sampling/candidates.h"

#include <gtest/gtest.h>

#include <cmath>
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
