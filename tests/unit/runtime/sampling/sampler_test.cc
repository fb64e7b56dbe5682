#include "runtime/sampling/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "runtime/sampling/nearest_draw.h"
#include "runtime/sampling/philox.h"
#include "tests/unit/runtime/sampling/random_logits.h"

namespace quern {
namespace {

struct OracleParams {
  double temperature, top_p, min_p;
  int32_t top_k;
};

// Every token's probability after all cuts, with a full sort in double precision. Order of the
// field: temperature, min_p, top_k, top_p of what is left; ties rank the lower id first.
std::vector<double> OracleProbabilities(const std::vector<float>& logits,
                                        const OracleParams& params) {
  const size_t n = logits.size();
  const double max = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weight(n);
  for (size_t i = 0; i < n; ++i) weight[i] = std::exp((logits[i] - max) / params.temperature);
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });

  std::vector<size_t> kept;
  for (const size_t i : order) {
    if (weight[i] < params.min_p) continue;
    if (params.top_k > 0 && kept.size() >= static_cast<size_t>(params.top_k)) break;
    kept.push_back(i);
  }
  double total = 0;
  for (const size_t i : kept) total += weight[i];
  double sum = 0;
  std::vector<double> result(n, 0.0);
  for (const size_t i : kept) {
    if (params.top_p < 1 && sum >= params.top_p * total) break;
    sum += weight[i];
    result[i] = weight[i];
  }
  for (double& p : result) p /= sum;
  return result;
}

int32_t OraclePick(const std::vector<double>& probabilities, double u) {
  double sum = 0;
  int32_t last = 0;
  for (size_t i = 0; i < probabilities.size(); ++i) {
    if (probabilities[i] == 0) continue;
    last = static_cast<int32_t>(i);
    sum += probabilities[i];
    if (sum > u) break;
  }
  return last;
}

// top_p over the whole vocabulary: the first of the draws from all of it that falls on a token
// which is kept.
int32_t OracleDraw(const std::vector<float>& logits, const OracleParams& params, uint64_t seed,
                   uint64_t position, double d_u) {
  const auto kept = OracleProbabilities(logits, params);
  const auto all = OracleProbabilities(logits, {params.temperature, 1, 0, 0});
  for (uint32_t draw = 0; draw < NearestDraw::kMostDraws; ++draw) {
    const double u = std::clamp(UniformAt(seed, position, draw) + d_u, 0.0, 1.0);
    const int32_t pick = OraclePick(all, u);
    if (kept[static_cast<size_t>(pick)] > 0) return pick;
  }
  const double u = UniformAt(seed, position, NearestDraw::kMostDraws);
  return OraclePick(kept, std::clamp(u + d_u, 0.0, 1.0));
}

// What the oracle picks, and what it would pick if a cut or the draw fell a rounding error to
// either side.
std::set<int32_t> OraclePicks(const std::vector<float>& logits, const SamplingParams& params,
                              uint64_t seed, uint64_t position) {
  constexpr double kRounding = 2e-6;
  std::set<int32_t> picks;
  const std::vector<double> exact = {0.0}, around = {0.0, -kRounding, kRounding};
  const bool ranks = params.top_k > 0 && static_cast<size_t>(params.top_k) < logits.size();
  const bool whole = params.min_p == 0 && !ranks && params.top_p < 1;
  for (const double d_min_p : params.min_p > 0 ? around : exact) {
    for (const double d_top_p : params.top_p < 1 ? around : exact) {
      const OracleParams cuts{params.temperature, params.top_p < 1 ? params.top_p + d_top_p : 1.0,
                              params.min_p * (1 + d_min_p), params.top_k};
      const auto probabilities = OracleProbabilities(logits, cuts);
      for (const double d_u : {0.0, -kRounding, kRounding}) {
        const double u = std::clamp(UniformAt(seed, position) + d_u, 0.0, 1.0);
        picks.insert(whole ? OracleDraw(logits, cuts, seed, position, d_u)
                           : OraclePick(probabilities, u));
      }
    }
  }
  return picks;
}

TEST(Sampler, GreedyTakesTheLikeliestAndTheLowestIdAmongEquals) {
  Sampler sampler;
  for (const size_t n : {1u, 5u, 64u, 100u, 49152u}) {
    auto logits = RandomLogits(n, 3, static_cast<uint32_t>(n));
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    EXPECT_EQ(*sampler.Sample(logits, {.temperature = 0}, 1, 1), best);
    EXPECT_EQ(*sampler.Sample(logits, {.temperature = 1, .top_k = 1}, 1, 1), best);
  }
  std::vector<float> ties(200, -1.0f);
  ties[77] = ties[78] = ties[150] = 4.0f;
  EXPECT_EQ(*sampler.Sample(ties, {.temperature = 0}, 1, 1), 77);
}

TEST(Sampler, ATemperatureNextToZeroIsGreedyAndNotNan) {
  Sampler sampler;
  const std::vector<float> logits = {1, 2, 8, 3};
  for (const float temperature : {0.0f, 1e-30f, 1e-6f, 2e-5f}) {
    EXPECT_EQ(*sampler.Sample(logits, {.temperature = temperature}, 9, 9), 2);
    EXPECT_EQ(*sampler.Sample(logits, {.temperature = temperature, .top_p = 0.5f}, 9, 9), 2);
  }
}

TEST(Sampler, AgreesWithADoublePrecisionFullSort) {
  std::mt19937 random(11);
  Sampler sampler;
  constexpr float kTopP[] = {1.0f, 0.999f, 0.95f, 0.6f, 0.1f, 1e-4f};
  constexpr float kMinP[] = {0.0f, 0.0f, 0.001f, 0.05f, 0.7f};
  constexpr int32_t kTopK[] = {0, 0, 2, 40, 64, 500, 1 << 20};
  constexpr float kTemperature[] = {0.2f, 0.7f, 1.0f, 2.0f};
  constexpr size_t kSizes[] = {1, 3, 64, 257, 1000, 5000};
  int ambiguous = 0;
  for (uint32_t i = 0; i < 1500; ++i) {
    const size_t n = kSizes[random() % std::size(kSizes)];
    const auto logits = RandomLogits(n, random() % 2 == 0 ? 1.0f : 5.0f, i);
    const SamplingParams params{.temperature = kTemperature[random() % std::size(kTemperature)],
                                .top_p = kTopP[random() % std::size(kTopP)],
                                .top_k = kTopK[random() % std::size(kTopK)],
                                .min_p = kMinP[random() % std::size(kMinP)]};
    const int32_t pick = sampler.Sample(logits, params, 5, i).value();
    const auto expected = OraclePicks(logits, params, 5, i);
    ambiguous += expected.size() > 1 ? 1 : 0;
    ASSERT_TRUE(expected.contains(pick))
        << "case " << i << ": picked " << pick << ", wanted " << *expected.begin() << "; n " << n
        << " temperature " << params.temperature << " top_p " << params.top_p << " top_k "
        << params.top_k << " min_p " << params.min_p;
  }
  EXPECT_LT(ambiguous, 50) << "the tolerance hides too much";
}

TEST(Sampler, AgreesWithTheOracleOnATwoHundredThousandTokenVocabulary) {
  Sampler sampler;
  auto logits = RandomLogits(262144, 2.5f, 3);
  const SamplingParams cases[] = {{.temperature = 1.0f},
                                  {.temperature = 0.8f, .top_p = 0.95f},
                                  {.temperature = 2.0f, .top_p = 0.99f},
                                  {.temperature = 1.0f, .top_k = 64},
                                  {.temperature = 1.0f, .top_k = 100000, .min_p = 0.01f}};
  uint64_t position = 0;
  for (const auto& params : cases) {
    const int32_t pick = sampler.Sample(logits, params, 1, ++position).value();
    EXPECT_TRUE(OraclePicks(logits, params, 1, position).contains(pick));
  }
}

// A few likely tokens over a long tail: what a language model gives.
std::vector<float> HeadAndTail(size_t n, size_t head, float above, float spread, uint32_t seed) {
  auto logits = RandomLogits(n, spread, seed);
  std::mt19937 random(seed);
  for (size_t i = 0; i < head; ++i) {
    logits[random() % n] = above - static_cast<float>(i) * 0.7f;
  }
  return logits;
}

TEST(Sampler, TopPOfManyTokensAgreesWithAFullSortWhereverTheCutIs) {
  Sampler sampler;
  constexpr float kTopP[] = {0.3f, 0.9f, 0.95f, 0.999f, 0.99999f};
  constexpr float kTemperature[] = {0.5f, 0.8f, 1.0f, 2.0f};
  uint64_t position = 0;
  int ambiguous = 0;
  for (const size_t n : {8191u, 8192u, 20001u, 49152u}) {
    for (const size_t head : {0u, 1u, 30u}) {
      for (const float above : {8.0f, 14.0f, 40.0f}) {
        const auto logits = HeadAndTail(n, head, above, 2.5f, static_cast<uint32_t>(position));
        ++position;
        const SamplingParams params{.temperature = kTemperature[position % std::size(kTemperature)],
                                    .top_p = kTopP[position % std::size(kTopP)]};
        const int32_t pick = sampler.Sample(logits, params, 3, position).value();
        const auto expected = OraclePicks(logits, params, 3, position);
        ambiguous += expected.size() > 1 ? 1 : 0;
        ASSERT_TRUE(expected.contains(pick))
            << "picked " << pick << ", wanted " << *expected.begin() << "; n " << n << " head "
            << head << " above " << above << " temperature " << params.temperature << " top_p "
            << params.top_p;
      }
    }
  }
  EXPECT_LT(ambiguous, 12) << "the tolerance hides too much";
}

TEST(Sampler, TopPOfEqualLogitsKeepsTheLowerIds) {
  Sampler sampler;
  std::vector<float> logits(20000, 1.0f);
  double sum = 0;
  for (uint64_t position = 0; position < 400; ++position) {
    const auto id = *sampler.Sample(logits, {.temperature = 1, .top_p = 0.25f}, 1, position);
    EXPECT_LT(id, 5000);
    sum += id;
  }
  EXPECT_NEAR(sum / 400, 2500, 4 * 5000 / std::sqrt(12 * 400));
  // The cut goes through equals below a head: of 16,000 that weigh 1 together, half are kept.
  for (size_t id = 0; id < logits.size(); ++id) {
    logits[id] = id < 4000 ? -40.0f : -std::log(16000.0f);
  }
  logits[0] = 0;
  for (uint64_t position = 0; position < 50; ++position) {
    const auto id = *sampler.Sample(logits, {.temperature = 1, .top_p = 0.75f}, 2, position);
    EXPECT_TRUE(id == 0 || (id >= 4000 && id < 12001)) << id;
  }
}

// Chi-square of 30,000 draws over positions against the oracle's probabilities; the seed is fixed.
double ChiSquare(const std::vector<float>& logits, const SamplingParams& params, int* degrees) {
  constexpr int kDraws = 30000;
  Sampler sampler;
  std::map<int32_t, int> counts;
  for (uint64_t i = 0; i < kDraws; ++i) ++counts[sampler.Sample(logits, params, 2026, i).value()];
  const auto probabilities =
      OracleProbabilities(logits, {params.temperature, params.top_p, params.min_p, params.top_k});
  double chi_square = 0;
  *degrees = -1;
  for (size_t id = 0; id < logits.size(); ++id) {
    const double expected = probabilities[id] * kDraws;
    const int count = counts[static_cast<int32_t>(id)];
    if (expected == 0) {
      EXPECT_EQ(count, 0) << "token " << id << " was cut";
      continue;
    }
    chi_square += (count - expected) * (count - expected) / expected;
    ++*degrees;
  }
  return chi_square;
}

TEST(Sampler, DrawsFollowTheDistribution) {
  const std::vector<float> logits = {0.0f, 1.0f, 0.5f, -1.0f, 2.0f, 1.5f, -0.5f, 0.2f, 0.9f, 1.1f};
  const SamplingParams cases[] = {{.temperature = 1.0f},
                                  {.temperature = 1.6f},
                                  {.temperature = 0.7f, .top_p = 0.9f},
                                  {.temperature = 1.0f, .top_k = 6},
                                  {.temperature = 1.0f, .min_p = 0.2f},
                                  {.temperature = 1.2f, .top_p = 0.8f, .top_k = 7, .min_p = 0.1f}};
  for (const auto& params : cases) {
    int degrees = 0;
    const double chi_square = ChiSquare(logits, params, &degrees);
    ASSERT_GE(degrees, 3);
    // Mean of the distribution is `degrees`, its variance twice that; four deviations above it is p
    // < 0.001.
    EXPECT_LT(chi_square, degrees + 4 * std::sqrt(2.0 * degrees));
  }
}

TEST(Sampler, TheSameSeedGivesTheSameTokensWhateverElseIsSampledBetween) {
  const auto mine = RandomLogits(1000, 1, 1);
  const auto other = RandomLogits(5000, 1, 2);
  const SamplingParams params{.temperature = 1.0f, .top_p = 0.9f};
  std::vector<int32_t> alone, among;
  Sampler first, second;
  for (uint64_t i = 0; i < 100; ++i) alone.push_back(*first.Sample(mine, params, 77, i));
  for (uint64_t i = 0; i < 100; ++i) {
    ASSERT_TRUE(second.Sample(other, {.temperature = 2.0f, .top_k = 50}, i, i).ok());
    among.push_back(*second.Sample(mine, params, 77, i));
  }
  EXPECT_EQ(alone, among);
  std::vector<int32_t> other_seed;
  for (uint64_t i = 0; i < 100; ++i) other_seed.push_back(*first.Sample(mine, params, 78, i));
  EXPECT_NE(alone, other_seed);
}

// ForwardBatch::logit_ranks: with top_k or greedily, the other logits need not be there.
TEST(Sampler, TheGreatestLogitsAloneGiveTheSameTokens) {
  Sampler whole, part;
  std::mt19937 random(std::random_device{}());
  for (uint64_t i = 0; i < 300; ++i) {
    auto logits = RandomLogits(1 + random() % 5000, 1.5f, static_cast<uint32_t>(random()));
    if (i % 3 == 0) {
      for (float& logit : logits) logit = std::round(logit * 4) / 4;  // many are equal
    }
    SamplingParams params{.temperature = i % 5 == 0 ? 0.0f : 1.5f,
                          .top_p = i % 2 == 0 ? 1.0f : 0.8f,
                          .top_k = static_cast<int32_t>(1 + random() % 60),
                          .min_p = i % 4 == 0 ? 0.1f : 0.0f};
    const auto rank = static_cast<size_t>(params.temperature == 0 ? 1 : params.top_k);
    if (rank >= logits.size()) continue;
    auto sorted = logits;
    std::ranges::sort(sorted, std::greater<>());
    auto greatest = logits;
    for (float& logit : greatest) {
      if (logit < sorted[rank - 1]) logit = std::numeric_limits<float>::lowest();
    }
    EXPECT_EQ(*part.Sample(greatest, params, 7, i), *whole.Sample(logits, params, 7, i))
        << "top_k " << params.top_k << ", temperature " << params.temperature;
  }
}

TEST(Sampler, LogitsThatAreNotNumbersAreAnErrorThatNamesTheToken) {
  Sampler sampler;
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    auto logits = RandomLogits(300, 1, 1);
    logits[123] = bad;
    for (const float temperature : {0.0f, 1.0f}) {
      const auto result = sampler.Sample(logits, {.temperature = temperature, .top_p = 0.9f}, 1, 1);
      ASSERT_FALSE(result.ok());
      EXPECT_EQ(result.error().code, ErrorCode::kInternal);
      EXPECT_NE(result.error().message.find("token 123 of 300"), std::string::npos)
          << result.error().message;
    }
  }
  EXPECT_TRUE(sampler.Sample(RandomLogits(300, 1, 1), {}, 1, 1).ok()) << "the next request goes on";
}

TEST(Sampler, ExtremeButFiniteLogitsAreSampled) {
  Sampler sampler;
  const float huge = std::numeric_limits<float>::max();
  EXPECT_EQ(*sampler.Sample(std::vector<float>{-huge, huge, -huge}, {.temperature = 1}, 1, 1), 1);
  EXPECT_EQ(
      *sampler.Sample(std::vector<float>{-huge, huge}, {.temperature = 2, .top_p = 0.99f}, 1, 1),
      1);
  const std::vector<float> equal(1000, -huge);
  EXPECT_LT(*sampler.Sample(equal, {.temperature = 1}, 1, 1), 1000);
}

}  // namespace
}  // namespace quern
