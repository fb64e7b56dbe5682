#include "runtime/backend/cpu/expert_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "quern/kernels/moe_permute.h"
#include "quern/kernels/quantize_activations.h"

namespace quern {
namespace {

using kernels::RouterNorm;

void ExpectRoutesAsTheReference(const std::vector<float>& logits, int top_k, RouterNorm norm,
                                float scale) {
  const auto experts = static_cast<int>(logits.size());
  const auto slots = static_cast<size_t>(top_k);
  std::vector<int32_t> ids(slots, -1), expected_ids(slots);
  std::vector<float> weights(slots);
  std::vector<double> expected(slots);
  kernels::ref::MoeRoute(logits.data(), experts, top_k, norm, scale, expected_ids.data(),
                         expected.data());
  RouteToken(logits.data(), experts, top_k, norm, scale, ids.data(), weights.data());
  EXPECT_EQ(ids, expected_ids) << experts << " experts, " << top_k << " chosen";
  for (size_t i = 0; i < slots; ++i) {
    if (std::isnan(expected[i])) {
      EXPECT_TRUE(std::isnan(weights[i]));
    } else {
      EXPECT_NEAR(weights[i], expected[i], 0x1p-23 * std::fabs(expected[i]) + 1e-45);
    }
  }
}

// Few values, so that most logits have equals.
TEST(RouteToken, ChoosesAsTheReferenceAmongEqualsToo) {
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 2000; ++round) {
    const int experts = 1 + static_cast<int>(random() % 40);
    const int top_k = 1 + static_cast<int>(random() % static_cast<unsigned>(std::min(experts, 8)));
    std::vector<float> logits(static_cast<size_t>(experts));
    for (float& logit : logits) logit = static_cast<float>(random() % 6) - 2.5f;
    ExpectRoutesAsTheReference(
        logits, top_k, round % 2 == 0 ? RouterNorm::kChosenExperts : RouterNorm::kAllExperts,
        round % 3 == 0 ? 2.5f : 1);
  }
}

TEST(RouteToken, TakesTheMostExpertsThereMayBe) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(kernels::kMaxRoutedExperts);
  for (float& logit : logits) logit = normal(random);
  ExpectRoutesAsTheReference(logits, kernels::kMaxChosenExperts, RouterNorm::kAllExperts, 1);
}

TEST(RouteToken, LogitsThatAreNoNumbersComeLastAndMakeNoWeights) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ExpectRoutesAsTheReference({nan, 1, nan, 3, 2}, 4, RouterNorm::kChosenExperts, 1);
  ExpectRoutesAsTheReference({1, 2, nan}, 1, RouterNorm::kAllExperts, 1);
  ExpectRoutesAsTheReference({nan, nan}, 2, RouterNorm::kChosenExperts, 1);
  ExpectRoutesAsTheReference({-INFINITY, 2, -INFINITY}, 2, RouterNorm::kChosenExperts, 1);
}

TEST(ExpertPlan, SortsAsTheReferenceDoes) {
  std::mt19937 random(std::random_device{}());
  ExpertPlan plan;
  for (int round = 0; round < 300; ++round) {
    const int experts = 1 + static_cast<int>(random() % 20);
    const int used =
        1 + static_cast<int>(random() % static_cast<unsigned>(experts));  // the rest: none
    const auto pairs = static_cast<int64_t>(1 + random() % 300);
    plan.Reserve(pairs, experts);
    for (size_t i = 0; i < static_cast<size_t>(pairs); ++i) {
      plan.expert_ids[i] = static_cast<int32_t>(random() % static_cast<unsigned>(used));
    }
    plan.SortPairs(pairs, experts);
    std::vector<int32_t> row_pairs(static_cast<size_t>(pairs)), pair_rows(row_pairs.size());
    std::vector<int32_t> offsets(static_cast<size_t>(experts) + 1);
    kernels::ref::MoePermute({plan.expert_ids.data(), pairs, experts, 1, row_pairs.data(),
                              pair_rows.data(), offsets.data(), nullptr, 0});
    EXPECT_TRUE(std::equal(row_pairs.begin(), row_pairs.end(), plan.row_pairs.begin()));
    EXPECT_TRUE(std::equal(pair_rows.begin(), pair_rows.end(), plan.pair_rows.begin()));
    size_t group = 0;
    size_t bundle = 0;
    for (int32_t expert = 0; expert < experts; ++expert) {
      const int64_t begin = offsets[static_cast<size_t>(expert)];
      const int64_t rows = offsets[static_cast<size_t>(expert) + 1] - begin;
      if (rows == 0) continue;
      ASSERT_LT(group, plan.groups.size());
      EXPECT_EQ(plan.groups[group].expert, expert);
      EXPECT_EQ(plan.groups[group].begin, begin);
      EXPECT_EQ(plan.groups[group].end, begin + rows);
      for (int64_t i = 0; i < kernels::NumBundles(rows); ++i, ++bundle) {
        ASSERT_LT(bundle, plan.bundles.size());
        EXPECT_EQ(plan.bundles[bundle].group, static_cast<int32_t>(group));
        EXPECT_EQ(plan.bundles[bundle].start, kernels::BundleStart(i, rows));
      }
      ++group;
    }
    EXPECT_EQ(group, plan.groups.size());
    EXPECT_EQ(bundle, plan.bundles.size());
  }
}

}  // namespace
}  // namespace quern
