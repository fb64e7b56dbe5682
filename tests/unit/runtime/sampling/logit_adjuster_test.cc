#include "runtime/sampling/logit_adjuster.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "runtime/sampling/logprobs.h"
#include "runtime/sampling/sampler.h"

namespace quern {
namespace {

// tests/recordings/sampling: vLLM's and Hugging Face's formulae, in double precision.
nlohmann::json Recordings() {
  std::ifstream in(QUERN_TESTS_DIR "/recordings/sampling/recordings.json");
  EXPECT_TRUE(in.good());
  return nlohmann::json::parse(in);
}

TEST(LogitAdjuster, AgreesWithTheRecordedFormulae) {
  const auto recordings = Recordings();
  ASSERT_GE(recordings.size(), 6u);
  for (const auto& recording : recordings) {
    SamplingParams params{.frequency_penalty = recording["frequency"],
                          .presence_penalty = recording["presence"],
                          .repetition_penalty = recording["repetition"]};
    for (const auto& pair : recording["bias"]) params.logit_bias.push_back({pair[0], pair[1]});
    const std::vector<int32_t> prompt = recording["prompt"];
    LogitAdjuster adjuster(params, prompt);
    const std::vector<int32_t> output = recording["output"];
    for (const int32_t token : output) adjuster.Count(token);
    const std::vector<float> before = recording["logits"];
    std::vector<float> logits = before;
    std::vector<LogitAdjuster::Original> originals;
    adjuster.Apply(logits, originals);
    const std::vector<float> expected = recording["penalised"];
    for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(logits[i], expected[i], 1e-4) << i;
    for (const auto& original : originals) {
      logits[static_cast<size_t>(original.token)] = original.logit;
    }
    EXPECT_EQ(logits, before) << "the originals undo it";
  }
}

TEST(LogitAdjuster, TouchesNothingButTheTokensThatWereSeenOrBiased) {
  LogitAdjuster adjuster({.frequency_penalty = 1.0f, .logit_bias = {{7, 3.0f}}},
                         std::vector<int32_t>{1, 2, 3});
  adjuster.Count(5);
  adjuster.Count(5);
  std::vector<float> logits(100, 1.0f);
  std::vector<LogitAdjuster::Original> originals;
  adjuster.Apply(logits, originals);
  EXPECT_EQ(originals.size(), 2u);
  EXPECT_EQ(logits[5], -1.0f);
  EXPECT_EQ(logits[7], 4.0f);
  logits[5] = logits[7] = 1.0f;
  EXPECT_EQ(logits, std::vector<float>(100, 1.0f));
}

TEST(LogitAdjuster, NothingAskedForIsNotNeeded) {
  EXPECT_FALSE(LogitAdjuster::Needed({.temperature = 0.3f, .top_p = 0.5f, .typical_p = 0.5f}));
  EXPECT_TRUE(LogitAdjuster::Needed({.presence_penalty = -0.1f}));
  EXPECT_TRUE(LogitAdjuster::Needed({.logit_bias = {{0, 0.0f}}}));
}

TEST(LogitAdjuster, LeavesWhatIsNotFiniteForTheSamplerToReportAndMakesNothingInfinite) {
  const SamplingParams params{.repetition_penalty = 1e-40f};
  LogitAdjuster adjuster(params, std::vector<int32_t>{0, 1});
  std::vector<float> logits = {std::numeric_limits<float>::infinity(), 5.0f, 1.0f};
  std::vector<LogitAdjuster::Original> originals;
  adjuster.Apply(logits, originals);
  EXPECT_FALSE(Sampler().Sample(logits, params, 1, 1).ok());
  logits[0] = 0;
  EXPECT_EQ(*Sampler().Sample(logits, params, 1, 1), 1);
}

TEST(LogprobReader, AgreesWithTheRecordingsAndNamesTheLikeliestInOrder) {
  LogprobReader reader;
  for (const auto& recording : Recordings()) {
    const std::vector<float> logits = recording["logits"];
    const std::vector<float> expected = recording["logprobs"];
    ASSERT_TRUE(reader.Measure(logits).ok());
    for (size_t i = 0; i < logits.size(); ++i) {
      EXPECT_NEAR(reader.Logprob(logits[i]), expected[i], 2e-5);
    }
    std::vector<std::pair<float, int32_t>> order;
    for (size_t i = 0; i < logits.size(); ++i) {
      order.emplace_back(-logits[i], static_cast<int32_t>(i));
    }
    std::sort(order.begin(), order.end());
    for (const size_t count : {0u, 1u, 3u, 20u}) {
      const auto top = reader.Top(logits, count);
      ASSERT_EQ(top.size(), std::min<size_t>(count, logits.size()));
      for (size_t i = 0; i < top.size(); ++i) EXPECT_EQ(top[i].token, order[i].second);
    }
  }
}

TEST(LogprobReader, FindsTheTopOfALargeVocabularyAndRefusesWhatIsNotFinite) {
  LogprobReader reader;
  std::mt19937 random(4);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  std::vector<float> logits(262144);
  for (float& logit : logits) logit = normal(random);
  ASSERT_TRUE(reader.Measure(logits).ok());
  std::vector<float> sorted = logits;
  std::sort(sorted.rbegin(), sorted.rend());
  const auto top = reader.Top(logits, 20);
  ASSERT_EQ(top.size(), 20u);
  for (size_t i = 0; i < top.size(); ++i) EXPECT_EQ(top[i].logprob, reader.Logprob(sorted[i]));
  EXPECT_EQ(reader.Logprob(-3e38f), -9999.0f) << "JSON has no infinity";
  logits[5] = std::nanf("");
  EXPECT_FALSE(reader.Measure(logits).ok());
}

TEST(Sampler, TypicalPKeepsWhatTheRecordingKeeps) {
  Sampler sampler;
  for (const auto& recording : Recordings()) {
    const std::vector<float> logits = recording["logits"];
    const std::vector<int32_t> typical = recording["typical"];
    const SamplingParams params{.temperature = recording["temperature"],
                                .typical_p = recording["typical_p"]};
    std::set<int32_t> drawn;
    for (uint64_t i = 0; i < 20000; ++i) drawn.insert(sampler.Sample(logits, params, 3, i).value());
    // Draws that are never made for want of luck are as good as cut: each has a mass.
    for (const int32_t token : drawn) {
      EXPECT_TRUE(std::binary_search(typical.begin(), typical.end(), token)) << token;
    }
    EXPECT_GE(drawn.size() * 10, typical.size() * 9);
  }
}

TEST(Sampler, TypicalPOfALargeVocabularyCutsWhereAFullSortWould) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal(0.0f, 2.5f);
  std::vector<float> logits(262144);
  for (float& logit : logits) logit = normal(random);
  double total = 0, mean = 0;
  for (const float logit : logits) total += std::exp(double{logit});
  for (const float logit : logits) mean += std::exp(double{logit}) / total * logit;
  std::vector<std::pair<double, double>> nearest;  // distance, probability
  for (const float logit : logits) {
    nearest.emplace_back(std::abs(logit - mean), std::exp(double{logit}) / total);
  }
  std::sort(nearest.begin(), nearest.end());
  double sum = 0, reach = 0;
  for (const auto& [distance, probability] : nearest) {
    if (sum >= 0.9) break;
    sum += probability;
    reach = distance;
  }
  Sampler sampler;
  double furthest = 0;
  for (uint64_t i = 0; i < 400; ++i) {
    const int32_t token = sampler.Sample(logits, {.typical_p = 0.9f}, 8, i).value();
    furthest = std::max(furthest, std::abs(logits[static_cast<size_t>(token)] - mean));
  }
  EXPECT_LE(furthest, reach + 1e-4);
  EXPECT_GE(furthest, reach * 0.95) << "and no token too many is cut";
}

// By rejection where the whole vocabulary is drawn from, from a list where min_p has cut it, and
// from one after too many rejections where the share is small.
TEST(Sampler, TypicalPDrawsInProportionToWhatIsKeptWhicheverWayItDraws) {
  constexpr size_t kVocabulary = 3000;
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0.0f, 1.5f);
  std::vector<float> logits(kVocabulary);
  for (float& logit : logits) logit = std::round(4 * normal(random)) / 4;  // many are equal
  std::vector<double> p(kVocabulary);
  double total = 0, mean = 0;
  for (size_t i = 0; i < kVocabulary; ++i) total += p[i] = std::exp(double{logits[i]});
  for (size_t i = 0; i < kVocabulary; ++i) mean += p[i] / total * logits[i];
  std::vector<std::pair<double, size_t>> order;
  for (size_t i = 0; i < kVocabulary; ++i) order.emplace_back(std::abs(logits[i] - mean), i);
  std::sort(order.begin(), order.end());
  Sampler sampler;
  for (const float share : {0.002f, 0.02f, 0.3f, 0.9f}) {
    std::vector<double> kept(kVocabulary);
    double mass = 0;
    for (const auto& [distance, i] : order) {
      if (mass >= double{share} * total) break;
      mass += kept[i] = p[i];
    }
    for (const float min_p : {0.0f, 1e-30f}) {
      constexpr int kDraws = 20000, kGroups = 8;
      double expected[kGroups] = {}, counted[kGroups] = {};
      for (size_t i = 0; i < kVocabulary; ++i) expected[i % kGroups] += kDraws * kept[i] / mass;
      for (uint64_t draw = 0; draw < kDraws; ++draw) {
        const SamplingParams params{.temperature = 1, .min_p = min_p, .typical_p = share};
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

// The draw after too many that were refused must be a new one: those that were refused are not
// uniform any more.
TEST(Sampler, TypicalPWithASmallShareThatLiesTogetherIsDrawnEvenly) {
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

TEST(Sampler, TypicalPLeavesOutTheLikeliestTokenWhereItIsNoSurprise) {
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

}  // namespace
}  // namespace quern
