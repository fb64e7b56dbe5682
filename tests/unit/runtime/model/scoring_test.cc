#include "runtime/model/scoring.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {
namespace {

using ::testing::HasSubstr;

TEST(TopK, GivesTheLargestFirstAndEqualOnesByIndex) {
  const std::vector<float> logits = {1, 5, 3, 5, -2};
  const auto top = TopK(logits, 3);
  ASSERT_EQ(top.size(), 3u);
  EXPECT_EQ(top[0], (std::pair<int32_t, float>(1, 5.0f)));
  EXPECT_EQ(top[1], (std::pair<int32_t, float>(3, 5.0f)));
  EXPECT_EQ(top[2], (std::pair<int32_t, float>(2, 3.0f)));
  EXPECT_EQ(TopK(logits, 99).size(), 5u);
}

TEST(LogSumExp, DoesNotOverflow) {
  EXPECT_NEAR(LogSumExp(std::vector<float>{1000, 1000}), 1000 + std::log(2), 1e-9);
  EXPECT_NEAR(LogSumExp(std::vector<float>{-1000, -1001}), -1000 + std::log1p(std::exp(-1.0)),
              1e-9);
}

TEST(ScoreSequence, HandsOutWantedPositionsInOrderAcrossSteps) {
  auto model = TinyModel().Load();
  ASSERT_TRUE(model);
  const KvLayout layout = LayoutFor((*model)->info(), 100);
  EXPECT_EQ(layout.num_blocks, 7);
  ASSERT_TRUE((*model)->AllocateKv(layout));
  std::vector<int32_t> tokens(100);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i % 50);
  std::vector<bool> wanted(100, false);
  wanted[0] = wanted[63] = wanted[64] = wanted[99] = true;
  std::vector<int32_t> seen;
  ASSERT_TRUE(ScoreSequence(**model, layout, tokens, wanted,
                            [&](int32_t position, std::span<const float> logits) {
                              EXPECT_EQ(logits.size(), 50u);
                              seen.push_back(position);
                            }));
  EXPECT_EQ(seen, (std::vector<int32_t>{0, 63, 64, 99}));
}

TEST(ScoreSequence, ATokenOutsideTheVocabularyIsNamed) {
  auto model = TinyModel().Load();
  ASSERT_TRUE(model);
  const KvLayout layout = LayoutFor((*model)->info(), 16);
  ASSERT_TRUE((*model)->AllocateKv(layout));
  const std::vector<int32_t> tokens = {1, 50};
  const Status status =
      ScoreSequence(**model, layout, tokens, {}, [](int32_t, std::span<const float>) {});
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message,
              HasSubstr("token 50 at position 1 is outside the vocabulary of 50"));
}

TEST(ScoreSequence, MoreTokensThanTheCacheHoldsAreRefused) {
  auto model = TinyModel().Load();
  ASSERT_TRUE(model);
  const KvLayout layout = LayoutFor((*model)->info(), 16);
  ASSERT_TRUE((*model)->AllocateKv(layout));
  const std::vector<int32_t> tokens(17, 1);
  EXPECT_FALSE(ScoreSequence(**model, layout, tokens, {}, [](int32_t, std::span<const float>) {}));
}

}  // namespace
}  // namespace quern::testing
