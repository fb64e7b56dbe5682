#include "runtime/backend/cpu/head_screen.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "quern/kernels/numeric_types.h"
#include "runtime/backend/cpu/cpu_backend.h"

namespace quern {
namespace {

using kernels::WeightType;

constexpr int64_t kWidth = 96;
constexpr int64_t kVocabulary = 1000;  // no whole number of tiles
constexpr int64_t kMemory = int64_t{1} << 30;

// Q8_0; scales are positive.
std::vector<uint8_t> RandomHead(std::mt19937& random) {
  std::vector<uint8_t> source(static_cast<size_t>(kVocabulary * kWidth / 32 * 34));
  for (uint8_t& byte : source) byte = static_cast<uint8_t>(random());
  std::uniform_real_distribution<float> scale(0.005f, 0.02f);
  for (size_t i = 0; i < source.size(); i += 34) {
    const uint16_t half = kernels::FloatToHalf(scale(random));
    source[i] = static_cast<uint8_t>(half);
    source[i + 1] = static_cast<uint8_t>(half >> 8);
  }
  return source;
}

// A backend with a head whose logits can be asked for in both ways.
class HeadScreenBackendTest : public ::testing::TestWithParam<int> {
 protected:
  HeadScreenBackendTest() { Load(RandomHead(random_)); }

  void Load(const std::vector<uint8_t>& source) {
    const auto bytes = std::as_bytes(std::span(source));
    const auto not_told = [](std::span<const std::byte>) {};
    head_ = backend_.LoadHead(WeightType::kQ8_0, bytes, kVocabulary, kWidth, not_told).value();
    plain_ = backend_.LoadMatrix(WeightType::kQ8_0, bytes, kVocabulary, kWidth, not_told).value();
  }

  // Rows of x; they replace the others.
  void SetRows(const std::vector<std::vector<float>>& rows) {
    const std::vector<int32_t> tokens(rows.size(), 0);
    std::vector<int32_t> positions(rows.size());
    std::iota(positions.begin(), positions.end(), 0);
    const auto count = static_cast<int32_t>(rows.size());
    const ForwardBatch::Sequence sequence{0, count, count, {}};
    ASSERT_TRUE(backend_.RunStep({tokens, positions, std::span(&sequence, 1), {}}, [&] {
      for (size_t i = 0; i < rows.size(); ++i) {
        std::copy(rows[i].begin(), rows[i].end(),
                  static_cast<float*>(x_->data) + static_cast<int64_t>(i) * kWidth);
      }
    }));
  }

  std::vector<float> Logits(const Matrix& head, const std::vector<int32_t>& ranks,
                            float softcap = 0) {
    std::vector<float> logits(static_cast<size_t>(x_->rows * kVocabulary));
    EXPECT_TRUE(backend_.Logits(*x_, head, softcap, ranks, logits));
    return logits;
  }

  // Of each row, as many of the greatest as its rank, ties by token: their ids and bits are those
  // of all logits. What else is given is right, too.
  void ExpectGreatest(const std::vector<int32_t>& ranks) {
    const auto all = Logits(*plain_, {});
    const auto some = Logits(*head_, ranks);
    for (size_t row = 0; row < ranks.size(); ++row) {
      const float* whole = all.data() + static_cast<int64_t>(row) * kVocabulary;
      const float* part = some.data() + static_cast<int64_t>(row) * kVocabulary;
      const auto first = [&](const float* logits) {
        std::vector<int32_t> ids(kVocabulary);
        std::iota(ids.begin(), ids.end(), 0);
        std::ranges::stable_sort(ids, [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
        ids.resize(static_cast<size_t>(ranks[row]));
        return ids;
      };
      EXPECT_EQ(first(part), first(whole)) << "row " << row << ", the first " << ranks[row];
      for (int64_t i = 0; i < kVocabulary; ++i) {
        if (part[i] != kNotAmongGreatest) {
          EXPECT_EQ(part[i], whole[i]) << i;
        }
      }
    }
  }

  std::vector<float> RandomRow() {
    std::normal_distribution<float> normal(0, 1);
    std::vector<float> row(kWidth);
    for (float& x : row) x = normal(random_);
    row[random_() % row.size()] *= 30;  // as hidden states have them
    return row;
  }

  std::mt19937 random_{std::random_device{}()};
  const char* error_ = nullptr;
  CpuBackend backend_{*kernels::SelectCpuKernels(&error_), GetParam(), kMemory};
  Tensor* x_ = backend_.NewTensor(TensorKind::kActivations, kWidth);
  std::unique_ptr<Matrix> head_, plain_;
};
INSTANTIATE_TEST_SUITE_P(Threads, HeadScreenBackendTest, ::testing::Values(1, 3));

TEST_P(HeadScreenBackendTest, GivesTheGreatestLogitsOfAFewRows) {
  for (int i = 0; i < 20; ++i) {
    SetRows({RandomRow()});
    for (const int32_t rank : {1, 2, 40, HeadScreen::kMostRank}) ExpectGreatest({rank});
    SetRows({RandomRow(), RandomRow()});
    ExpectGreatest({1, 30});
  }
  EXPECT_EQ(backend_.head_reads().rows, 20 * 6);
  EXPECT_GT(backend_.head_reads().bytes, 0);
  EXPECT_EQ(backend_.head_reads().whole_bytes, 20 * 5 * plain_->bytes());
}

TEST_P(HeadScreenBackendTest, GivesAllThatAreWantedOtherwise) {
  SetRows({RandomRow()});
  const auto expect_all = [&](const std::vector<int32_t>& ranks, float softcap = 0) {
    EXPECT_EQ(Logits(*head_, ranks, softcap), Logits(*plain_, {}, softcap));
  };
  expect_all({});
  expect_all({0});
  expect_all({HeadScreen::kMostRank + 1});
  expect_all({kVocabulary});
  expect_all({1}, 30);
  SetRows({RandomRow(), RandomRow()});
  expect_all({1, 0});
  SetRows(std::vector<std::vector<float>>(HeadScreen::kMostRows + 1, RandomRow()));
  expect_all(std::vector<int32_t>(HeadScreen::kMostRows + 1, 1));
  EXPECT_EQ(backend_.head_reads().rows, 0);
}

TEST_P(HeadScreenBackendTest, ShowsThatActivationsAreNoNumbers) {
  for (const float wrong : {NAN, INFINITY, -INFINITY}) {
    auto row = RandomRow();
    row[17] = wrong;
    SetRows({row});
    const auto logits = Logits(*head_, {1});
    EXPECT_TRUE(std::ranges::none_of(logits, [](float x) { return std::isfinite(x); })) << wrong;
  }
}

TEST_P(HeadScreenBackendTest, OfZerosAllLogitsAreZero) {
  SetRows({std::vector<float>(kWidth, 0.0f)});
  EXPECT_EQ(Logits(*head_, {1}), std::vector<float>(kVocabulary, 0.0f));
}

TEST_P(HeadScreenBackendTest, AHeadWithANegativeScaleIsReadWhole) {
  std::vector<uint8_t> source = RandomHead(random_);
  source[34 * 500 + 1] |= 0x80;
  Load(source);
  SetRows({RandomRow()});
  EXPECT_EQ(Logits(*head_, {1}), Logits(*plain_, {}));
}

// Of a large head: whose logits say little is soon left to the whole product, and tried again.
TEST_P(HeadScreenBackendTest, IsGivenUpForAWhileWhereItReadsTooMuch) {
  constexpr int64_t kRows = HeadScreen::kLargeHeadBytes / kWidth;
  const std::vector<uint8_t> one(kWidth / 32 * 34, 0x11);
  std::vector<uint8_t> source;
  for (int64_t i = 0; i < kRows; ++i) source.insert(source.end(), one.begin(), one.end());
  head_ = backend_
              .LoadHead(WeightType::kQ8_0, std::as_bytes(std::span(source)), kRows, kWidth,
                        [](std::span<const std::byte>) {})
              .value();
  SetRows({RandomRow()});
  std::vector<float> logits(kRows), first;
  constexpr int kSteps = 40;
  const int32_t rank = 1;
  for (int i = 0; i < kSteps; ++i) {
    ASSERT_TRUE(backend_.Logits(*x_, *head_, 0, std::span(&rank, 1), logits));
    if (i == 0) first = logits;
    EXPECT_EQ(logits, first) << "all are as great as the greatest";
  }
  // Steps 0, 2, 5, 10, 19 and 36, with pauses of 1, 2, 4, 8 and 16 between them.
  EXPECT_EQ(backend_.head_reads().rows, 6);
}

TEST_P(HeadScreenBackendTest, AllEqualRowsAreAllAmongTheGreatest) {
  std::vector<uint8_t> source = RandomHead(random_);
  constexpr size_t kRowBytes = kWidth / 32 * 34;
  for (size_t i = kRowBytes; i < source.size(); ++i) source[i] = source[i - kRowBytes];
  Load(source);
  SetRows({RandomRow()});
  EXPECT_EQ(Logits(*head_, {3}), Logits(*plain_, {}));
}

}  // namespace
}  // namespace quern
