#include "runtime/sampling/spread_nucleus.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/unit/runtime/sampling/random_logits.h"

namespace quern {
namespace {

constexpr float kNoHead = std::numeric_limits<float>::infinity();

SpreadNucleus::Distribution Of(const std::vector<float>& logits, float head) {
  const float max = *std::max_element(logits.begin(), logits.end());
  double head_weight = 0;
  for (const float logit : logits) {
    if (logit >= head) head_weight += std::exp(logit - max);
  }
  return {logits, max, 1.0f, head, head_weight};
}

double WeightBelow(const SpreadNucleus::Distribution& of) {
  double weight = 0;
  for (const float logit : of.logits) {
    if (logit < of.head) weight += std::exp(double{logit} - of.max);
  }
  return weight;
}

TEST(SpreadNucleus, TheSampleTellsTheWeightBelowTheHead) {
  SpreadNucleus nucleus{LogitScan{}};
  const auto logits = RandomLogits(100001, 2, 1);
  for (const float head : {kNoHead, 5.0f, 0.0f}) {
    const auto of = Of(logits, head);
    EXPECT_NEAR(nucleus.Sample(of) / WeightBelow(of), 1, 0.25) << head;
  }
}

TEST(SpreadNucleus, DrawsOnlyWhatTheShareNeedsAndAllOfIt) {
  SpreadNucleus nucleus{LogitScan{}};
  const auto logits = RandomLogits(50000, 2, 2);
  for (const float head : {kNoHead, 6.0f}) {
    const auto of = Of(logits, head);
    auto sorted = logits;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    const double total = of.head_weight + WeightBelow(of);
    for (const double share : {0.5, 0.9, 0.99}) {
      nucleus.Sample(of);
      double kept = 0;
      size_t count = 0;
      while (kept < share * total) kept += std::exp(double{sorted[count++]} - of.max);
      const float last = sorted[count - 1];
      float least_drawn = of.max;
      for (int i = 0; i < 400; ++i) {
        nucleus.Sample(of);
        const auto drawn = nucleus.Draw(of, share, i / 400.0);
        ASSERT_TRUE(drawn.id) << "the estimate failed";
        EXPECT_NEAR(drawn.total_weight / total, 1, 1e-5);
        least_drawn = std::min(least_drawn, logits[static_cast<size_t>(*drawn.id)]);
      }
      EXPECT_GE(least_drawn, last);
      EXPECT_LT(least_drawn, last + 2) << "nothing near the cut is ever drawn";
    }
  }
}

TEST(SpreadNucleus, ACutInTheHeadIsLeftToTheCaller) {
  SpreadNucleus nucleus{LogitScan{}};
  const auto logits = RandomLogits(50000, 2, 3);
  const auto of = Of(logits, -1.0f);
  nucleus.Sample(of);
  EXPECT_FALSE(nucleus.Draw(of, 0.5, 0.5).id);
}

TEST(SpreadNucleus, EqualLogitsAreLeftToTheCaller) {
  SpreadNucleus nucleus{LogitScan{}};
  const std::vector<float> logits(20000, 3.0f);
  const auto of = Of(logits, kNoHead);
  nucleus.Sample(of);
  EXPECT_FALSE(nucleus.Draw(of, 0.5, 0.5).id);
}

}  // namespace
}  // namespace quern
