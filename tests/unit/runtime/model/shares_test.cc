#include "runtime/model/shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "quern/kernels/dequantize.h"
#include "runtime/backend/cpu/cpu_matrix.h"
#include "runtime/model/weight_loader.h"
#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {
namespace {

using ::testing::HasSubstr;

Hyperparameters Sizes(int heads, int kv_heads, int ffn, int vocab) {
  Hyperparameters h;
  h.heads = heads;
  h.kv_heads = kv_heads;
  h.ffn_width = ffn;
  h.vocab_size = vocab;
  return h;
}

TEST(Shares, PutTogetherAreTheWhole) {
  // A vocabulary and numbers of blocks that do not divide.
  const Hyperparameters h = Sizes(8, 4, 11 * 256, 50'257);
  for (const int size : {1, 2, 4, 8}) {
    int64_t heads = 0, ffn = 0, vocab = 0;
    for (int rank = 0; rank < size; ++rank) {
      const auto shares = ShareOut(h, {1, 256}, rank, size);
      ASSERT_TRUE(shares) << shares.error().message;
      EXPECT_EQ(shares->heads.begin, heads);
      EXPECT_EQ(shares->heads.size, 8 / size);
      EXPECT_EQ(shares->ffn.begin, ffn);
      EXPECT_EQ(shares->ffn.size % 256, 0);
      EXPECT_LE(std::abs(shares->ffn.size - h.ffn_width / size), 256);
      EXPECT_EQ(shares->vocab.begin, vocab);
      EXPECT_LE(std::abs(shares->vocab.size - h.vocab_size / size), 1);
      heads = shares->heads.end();
      ffn = shares->ffn.end();
      vocab = shares->vocab.end();
      // Every query head's KV head is there, in its place.
      const int64_t group = shares->heads.size / shares->kv_heads.size;
      for (int64_t head = 0; head < shares->heads.size; ++head) {
        const int64_t wanted = (shares->heads.begin + head) / (h.heads / h.kv_heads);
        EXPECT_EQ(shares->kv_heads.begin + head / group, wanted) << size << " " << rank;
      }
    }
    EXPECT_EQ(heads, h.heads);
    EXPECT_EQ(ffn, h.ffn_width);
    EXPECT_EQ(vocab, h.vocab_size);
  }
}

TEST(Shares, WhatCannotBeSplitIsRefusedWithTheReasonAndWhatCan) {
  const auto refusal = [](const Hyperparameters& h, int64_t unit, int size) {
    const auto shares = ShareOut(h, {1, unit}, 0, size);
    EXPECT_FALSE(shares);
    if (shares) return std::string();
    EXPECT_EQ(shares.error().code, ErrorCode::kUnsupported);
    return shares.error().message;
  };
  const Hyperparameters smollm2 = Sizes(9, 3, 1536, 49'152);
  EXPECT_EQ(refusal(smollm2, 32, 2),
            "this model cannot be split over 2 processes: its 9 attention heads cannot be split "
            "evenly; numbers that suit it: 1, 3, 9");
  EXPECT_THAT(refusal(smollm2, 32, 4), HasSubstr("4 processes: its 9 attention heads"));
  EXPECT_THAT(refusal(Sizes(12, 6, 1024, 1000), 32, 4),
              HasSubstr("its 6 KV heads can neither be split evenly nor be copied evenly"));
  EXPECT_THAT(refusal(Sizes(8, 8, 768, 1000), 256, 4),
              HasSubstr("its feed-forward width of 768 is 3 of 256"));
  EXPECT_THAT(refusal(Sizes(8, 8, 4096, 3), 32, 4), HasSubstr("its vocabulary has 3 tokens"));
  Hyperparameters experts = Sizes(8, 8, 1, 1000);
  experts.experts = 16;
  experts.expert_ffn_width = 768;
  const auto shares = ShareOut(experts, {1, 1, 256}, 0, 4);
  ASSERT_FALSE(shares);
  EXPECT_THAT(
      shares.error().message,
      HasSubstr("each expert's feed-forward width of 768 is 3 of 256, which cannot be split "
                "further; numbers that suit it: 1, 2"));
}

TEST(Shares, OfExpertsAreSplitAndTheirRouterIsNot) {
  Hyperparameters h = Sizes(8, 4, 1, 1000);
  h.experts = 16;
  h.expert_ffn_width = 5 * 256;
  int64_t end = 0;
  for (int rank = 0; rank < 4; ++rank) {
    const auto shares = ShareOut(h, {1, 1, 256}, rank, 4);
    ASSERT_TRUE(shares) << shares.error().message;
    EXPECT_EQ(shares->expert_ffn.begin, end);
    EXPECT_EQ(shares->expert_ffn.whole, 5 * 256);
    EXPECT_GE(shares->expert_ffn.size, 256);
    EXPECT_EQ(shares->ffn.size, 0);
    end = shares->expert_ffn.end();
  }
  EXPECT_EQ(end, 5 * 256);
}

// A file with one matrix of random bytes, the same bytes as those of several experts, and what a
// loader makes of parts of them.
class SlicesTest : public ::testing::TestWithParam<kernels::WeightType> {
 protected:
  static constexpr int64_t kRows = 21, kCols = 1024, kExperts = 3;

  SlicesTest() : info_(*kernels::FindWeightTypeInfo(GetParam())) {
    std::mt19937 random(7);
    std::vector<uint8_t> data(
        static_cast<size_t>(kRows * kCols / info_.block_elements * info_.block_bytes));
    // No 16-bit number is infinite or none that way.
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random() & 0x3f);
    GgufWriter writer;
    writer.String("general.architecture", "llama");
    writer.Tensor("matrix", {kCols, kRows}, static_cast<uint32_t>(GetParam()), data);
    writer.Tensor("experts", {kCols, kRows / kExperts, kExperts}, static_cast<uint32_t>(GetParam()),
                  data);
    bytes_ = writer.Bytes();
    file_ = GgufFile::Parse(AsBytes(bytes_), "one.gguf").value();
    backend_ = MakeCpuBackend(1).value();
  }

  const kernels::WeightTypeInfo& info_;
  std::vector<uint8_t> bytes_;
  std::unique_ptr<GgufFile> file_;
  std::unique_ptr<Backend> backend_;
};
INSTANTIATE_TEST_SUITE_P(Types, SlicesTest, ::testing::ValuesIn(kernels::kAllWeightTypes),
                         [](const auto& info) {
                           return kernels::FindWeightTypeInfo(info.param)->name;
                         });

TEST_P(SlicesTest, OfEachExpertAreTheBitsOfTheWhole) {
  constexpr int64_t kOfEach = kRows / kExperts;
  const std::vector<float> whole =
      Dequantize(GetParam(), file_->FindTensor("experts")->data, kRows * kCols);
  WeightLoader loader(*file_, backend_.get(), false);
  for (const Part& rows : {Part(kOfEach), Part(0, 3, kOfEach), Part(3, 4, kOfEach)}) {
    for (const Part& cols : {Part(kCols), Part(0, 256, kCols), Part(256, 768, kCols)}) {
      const auto matrices = loader.LoadExperts("experts", kExperts, rows, cols);
      ASSERT_TRUE(matrices) << matrices.error().message;
      std::vector<float> row(static_cast<size_t>(cols.size));
      for (int64_t i = 0; i < kExperts * rows.size; ++i) {
        const int64_t expert = i / rows.size, at = i % rows.size;
        kernels::UnpackRow(
            static_cast<const CpuExperts&>(**matrices).packed(static_cast<int>(expert)), at,
            row.data());
        const int64_t first = (expert * kOfEach + rows.begin + at) * kCols + cols.begin;
        EXPECT_EQ(std::memcmp(row.data(), whole.data() + first, row.size() * sizeof(float)), 0)
            << "expert " << expert << ", row " << at;
      }
    }
  }
}

TEST_P(SlicesTest, AreTheBitsOfTheWhole) {
  const std::vector<float> whole =
      Dequantize(GetParam(), file_->FindTensor("matrix")->data, kRows * kCols);
  WeightLoader loader(*file_, backend_.get(), false);
  for (const Part& rows : {Part(kRows), Part(0, 10, kRows), Part(10, 11, kRows)}) {
    for (const Part& cols : {Part(kCols), Part(0, 256, kCols), Part(256, 768, kCols)}) {
      const auto matrix = loader.LoadMatrix("matrix", rows, cols);
      ASSERT_TRUE(matrix) << matrix.error().message;
      ASSERT_EQ((*matrix)->rows(), rows.size);
      ASSERT_EQ((*matrix)->cols(), cols.size);
      std::vector<float> row(static_cast<size_t>(cols.size));
      for (int64_t i = 0; i < rows.size; ++i) {
        kernels::UnpackRow(static_cast<const CpuMatrix&>(**matrix).packed(), i, row.data());
        EXPECT_EQ(std::memcmp(row.data(), whole.data() + (rows.begin + i) * kCols + cols.begin,
                              row.size() * sizeof(float)),
                  0)
            << "row " << i << " of " << rows.begin << ", columns from " << cols.begin;
      }
    }
  }
}

TEST_P(SlicesTest, BeginAndEndWithABlock) {
  const int64_t block = info_.block_elements;
  EXPECT_EQ(WeightLoader(*file_, backend_.get(), false).BlockOf("matrix"), block);
  if (block == 1) return;
  for (const bool float32 : {false, true}) {
    WeightLoader loader(*file_, backend_.get(), float32);
    for (const Part& cols : {Part(block / 2, block, kCols), Part(0, block / 2, kCols)}) {
      const auto matrix = loader.LoadMatrix("matrix", kRows, cols);
      ASSERT_FALSE(matrix);
      EXPECT_EQ(matrix.error().code, ErrorCode::kUnsupported);
      EXPECT_EQ(matrix.error().message,
                fmt::format("tensor matrix: columns {} to {} of 1024 cannot be split off: the "
                            "weights are stored as {}, in blocks of {} columns, and a part must "
                            "begin and end with one",
                            cols.begin, cols.end(), info_.name, block));
    }
  }
}

}  // namespace
}  // namespace quern::testing
