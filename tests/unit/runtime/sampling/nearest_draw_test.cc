#include "runtime/sampling/nearest_draw.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "runtime/sampling/sampler.h"
#include "tests/unit/runtime/sampling/random_logits.h"

namespace quern {
namespace {

// By rejection where the whole vocabulary is drawn from, from a list where min_p has cut it, and
// from one after too many rejections where the share is small.
TEST(NearestDraw, DrawsInProportionToWhatIsKeptWhicheverWayItDraws) {
  constexpr size_t kVocabulary = 9000;  // several passes of the question whether a token is kept
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 1.5f);
  std::vector<float> logits(kVocabulary);
  for (float& logit : logits) logit = std::round(4 * normal(random)) / 4;  // many are equal
  std::vector<double> p(kVocabulary);
  double total = 0, mean = 0;
  for (size_t i = 0; i < kVocabulary; ++i) total += p[i] = std::exp(double{logits[i]});
  for (size_t i = 0; i < kVocabulary; ++i) mean += p[i] / total * logits[i];
  const double max = *std::max_element(logits.begin(), logits.end());
  Sampler sampler;
  for (const bool typical : {false, true}) {
    std::vector<std::pair<double, size_t>> order;
    for (size_t i = 0; i < kVocabulary; ++i) {
      order.emplace_back(std::abs(logits[i] - (typical ? mean : max)), i);
    }
    std::sort(order.begin(), order.end());
    for (const float share : {0.002f, 0.02f, 0.3f, 0.9f}) {
      std::vector<double> kept(kVocabulary);
      double mass = 0;
      for (const auto& [distance, i] : order) {
        if (mass >= double{share} * total) break;
        mass += kept[i] = p[i];
      }
      for (const float min_p : {0.0f, 1e-30f}) {
        constexpr int kDraws = 4000, kGroups = 8;
        double expected[kGroups] = {}, counted[kGroups] = {};
        for (size_t i = 0; i < kVocabulary; ++i) expected[i % kGroups] += kDraws * kept[i] / mass;
        for (uint64_t draw = 0; draw < kDraws; ++draw) {
          const SamplingParams params{.temperature = 1,
                                      .top_p = typical ? 1.0f : share,
                                      .min_p = min_p,
                                      .typical_p = typical ? share : 1.0f};
          const auto token = static_cast<size_t>(*sampler.Sample(logits, params, 3, draw));
          ASSERT_GT(kept[token], 0) << token << ", share " << share << ", min_p " << min_p;
          counted[token % kGroups] += 1;
        }
        for (int group = 0; group < kGroups; ++group) {
          EXPECT_NEAR(counted[group], expected[group], 5 * std::sqrt(expected[group]) + 1)
              << "group " << group << ", share " << share << ", min_p " << min_p;
        }
      }
    }
  }
}

// The draw after too many that were refused must be a new one: those that were refused are not
// uniform any more.
TEST(NearestDraw, ASmallShareThatLiesTogetherIsDrawnEvenly) {
  // Of the mass, 48 % have the lowest ids and 49 % the highest; three tokens of 1 % between them
  // are as expected as can be.
  std::vector<float> logits(3 + 2 * 48, 0.0f);
  for (size_t i = 0; i < 48; ++i) logits[i] = std::log(0.48f / 48) + 1.5f;
  for (size_t i = 51; i < logits.size(); ++i) logits[i] = std::log(0.49f / 48) - 1.5f;
  double total = 0, mean = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (i < 48 || i >= 51) total += std::exp(double{logits[i]});
  }
  for (size_t i = 0; i < logits.size(); ++i) {
    if (i < 48 || i >= 51) mean += std::exp(double{logits[i]}) / total * logits[i];
  }
  for (size_t i = 48; i < 51; ++i) logits[i] = static_cast<float>(mean);
  double kept = 0, all = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp(double{logits[i]});
    all += weight;
    if (i >= 48 && i < 51) kept += weight;
  }
  Sampler sampler;
  int counts[3] = {};
  constexpr int kDraws = 6000;
  for (uint64_t i = 0; i < kDraws; ++i) {
    const auto share = static_cast<float>(kept / all * 0.999);
    const int32_t token = *sampler.Sample(logits, {.typical_p = share}, 11, i);
    ASSERT_TRUE(token >= 48 && token < 51) << token;
    ++counts[token - 48];
  }
  for (const int count : counts) EXPECT_NEAR(count, kDraws / 3, 5 * std::sqrt(kDraws / 3.0));
}

TEST(NearestDraw, TypicalPLeavesOutTheLikeliestTokenWhereItIsNoSurprise) {
  // p = 0.5 and fifty of 0.01: the entropy of 2.65 is nearer to -ln 0.01 (4.6) than to -ln 0.5
  // (0.7).
  std::vector<float> logits(51, std::log(0.01f));
  logits[50] = std::log(0.5f);
  Sampler sampler;
  std::set<int32_t> drawn;
  for (uint64_t i = 0; i < 2000; ++i) {
    drawn.insert(sampler.Sample(logits, {.typical_p = 0.295f}, 1, i).value());
  }
  EXPECT_FALSE(drawn.contains(50));
  EXPECT_EQ(drawn.size(), 30u) << "the lower ids of those that are equally near";
}

// A single likely token that is far from what is typical is drawn again and again, and refused.
TEST(NearestDraw, ATokenThatIsRefusedAgainAndAgainIsNeverDrawn) {
  std::vector<float> logits(20000, -9.6f);
  logits[12345] = std::log(20000.0f) - 9.6f;  // half of the weight
  for (size_t i = 0; i < logits.size(); i += 20) logits[i] = -9.4f;
  Sampler sampler;
  for (uint64_t i = 0; i < 300; ++i) {
    EXPECT_NE(sampler.Sample(logits, {.temperature = 1, .typical_p = 0.05f}, 4, i).value(), 12345);
  }
}

TEST(NearestDraw, SharesNextToNothingAndToAllAreDrawnFrom) {
  const auto logits = RandomLogits(5000, 2.0f, 9);
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  Sampler sampler;
  std::set<int32_t> drawn;
  for (uint64_t i = 0; i < 500; ++i) {
    EXPECT_EQ(sampler.Sample(logits, {.temperature = 1, .top_p = 1e-30f}, 4, i).value(), best);
    drawn.insert(sampler.Sample(logits, {.temperature = 1, .top_p = 0.9999999f}, 4, i).value());
  }
  EXPECT_GT(drawn.size(), 200u);
}

}  // namespace
}  // namespace quern
