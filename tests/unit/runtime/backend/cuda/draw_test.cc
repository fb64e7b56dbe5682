// Tokens that the device draws, against the logits that it gives for the same rows.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "quern/kernels/sample_tokens.h"
#include "runtime/sampling/philox.h"
#include "tests/unit/runtime/backend/cuda/cuda_models.h"

namespace quern::testing {
namespace {

// Of all weights (2^-17, as the kernel's own test derives it): the rounding of x, its rank and its
// exponent.
constexpr double kWeightError = 0x1p-17;

// Whether u of the row's weights, summed by id, falls to `token`, up to roundings.
void ExpectTheRulesToken(std::span<const float> logits, const TokenDraw& draw, int32_t token) {
  SCOPED_TRACE("temperature " + std::to_string(draw.temperature) + ", top_k " +
               std::to_string(draw.top_k) + ", top_p " + std::to_string(draw.top_p) + ", min_p " +
               std::to_string(draw.min_p));
  ASSERT_GE(token, 0);
  ASSERT_LT(token, std::ssize(logits));
  std::vector<double> weights(logits.size());
  const double doubtful =
      kernels::ref::SampleWeights(logits.data(), std::ssize(logits), draw, weights.data());
  ASSERT_GE(doubtful, 0);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const double before = std::accumulate(weights.begin(), weights.begin() + token, 0.0);
  const double own = weights[static_cast<size_t>(token)];
  const double at = UniformAt(draw.seed, draw.position) * total;
  const double bound =
      kWeightError * total + static_cast<double>(logits.size()) * 0x1p-44 + doubtful;
  EXPECT_TRUE(own > 0 || doubtful > 0) << token << " is cut";
  EXPECT_TRUE(at >= before - bound && at <= before + own + bound)
      << "token " << token << " has " << before << " to " << before + own << " of " << total
      << ", and the draw is at " << at;
}

class CudaDraw : public ::testing::Test {
 protected:
  void SetUp() override {
    seed_ = std::random_device{}();
    random_.seed(seed_);
  }
  // The model's logits for 40 rows.
  void Load(uint32_t vocabulary) {
    TinyModel tiny = SmallModel();
    tiny.vocab = vocabulary;
    model_ = LoadOnCuda(tiny).model;
    ASSERT_TRUE(model_ && model_->draws());
    ASSERT_TRUE(model_->AllocateKv({kBlockTokens, 4}).ok());
    const auto tokens = RandomTokens(random_, 40, static_cast<int>(vocabulary));
    batch_.Add(tokens, 40, BlocksFrom(0, 4));
    ASSERT_TRUE(model_->Forward(batch_.batch(), {}).ok());
    rows_.resize(40);
    std::iota(rows_.begin(), rows_.end(), 0);
    logits_.resize(40 * vocabulary);
    ASSERT_TRUE(model_->ReadLogits(rows_, logits_).ok());
  }
  std::span<const float> LogitsOf(int32_t row) const {
    const size_t width = logits_.size() / 40;
    return std::span(logits_).subspan(static_cast<size_t>(row) * width, width);
  }
  TokenDraw RandomDraw() {
    std::uniform_real_distribution<float> uniform(0, 1);
    TokenDraw draw{0.2f + 1.5f * uniform(random_), 1, 0, 0, random_(), random_() % 5000};
    switch (random_() % 6) {
      case 0:
        draw.temperature = 0;
        break;
      case 1:
        draw.top_k = static_cast<int32_t>(1 + random_() % 80);
        break;
      case 2:
        draw.top_p = uniform(random_);
        break;
      case 3:
        draw.min_p = 0.3f * uniform(random_);
        break;
      case 4:
        draw.top_k = static_cast<int32_t>(2 + random_() % 30);
        draw.top_p = uniform(random_);
        draw.min_p = 0.05f * uniform(random_);
        break;
      default:
        break;
    }
    return draw;
  }

  uint32_t seed_ = 0;
  std::mt19937 random_;
  std::unique_ptr<Model> model_;
  StepBatch batch_;
  std::vector<int32_t> rows_;
  std::vector<float> logits_;
};

TEST_F(CudaDraw, GreedyIsTheFirstOfTheGreatestLogits) {
  Load(70);
  const std::vector<TokenDraw> greedy(40, TokenDraw{0, 0.5f, 0.1f, 0, 7, 3});
  std::vector<int32_t> tokens(40);
  ASSERT_TRUE(model_->Draw(rows_, greedy, tokens).ok());
  for (const int32_t row : rows_) {
    const auto logits = LogitsOf(row);
    EXPECT_EQ(tokens[static_cast<size_t>(row)], std::ranges::max_element(logits) - logits.begin());
  }
}

TEST_F(CudaDraw, EachTokenIsTheOneThatTheRuleGives) {
  // Rows of logits that are no multiple of 4 long, and of a vocabulary of several tiles.
  for (const uint32_t vocabulary : {70u, 2300u}) {
    batch_ = {};
    ASSERT_NO_FATAL_FAILURE(Load(vocabulary));
    for (int i = 0; i < 2; ++i) {
      std::vector<int32_t> rows = rows_;  // some of them, ascending
      std::erase_if(rows, [&](int32_t) { return random_() % 3 == 0; });
      std::vector<TokenDraw> draws;
      for (size_t row = 0; row < rows.size(); ++row) draws.push_back(RandomDraw());
      std::vector<int32_t> tokens(rows.size());
      ASSERT_TRUE(model_->Draw(rows, draws, tokens).ok());
      for (size_t row = 0; row < rows.size(); ++row) {
        SCOPED_TRACE("row " + std::to_string(row) + ", seed " + std::to_string(seed_));
        ExpectTheRulesToken(LogitsOf(rows[row]), draws[row], tokens[row]);
      }
      // One row alone gets the token that it gets beside others.
      const size_t one = random_() % rows.size();
      int32_t alone = -2;
      ASSERT_TRUE(model_
                      ->Draw(std::span(rows).subspan(one, 1), std::span(draws).subspan(one, 1),
                             std::span(&alone, 1))
                      .ok());
      EXPECT_EQ(alone, tokens[one]) << "seed " << seed_;
    }
    // Drawing leaves what can be read.
    std::vector<float> again(logits_.size());
    ASSERT_TRUE(model_->ReadLogits(rows_, again).ok());
    EXPECT_EQ(again, logits_);
  }
}

}  // namespace
}  // namespace quern::testing
