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

}  // namespace
}  // namespace quern
