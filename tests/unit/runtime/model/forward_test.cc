#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <tuple>

#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {
namespace {

constexpr int32_t kBlock = 4;
constexpr KvDtype kServedDtypes[] = {KvDtype::kF16, KvDtype::kInt8, KvDtype::kInt4};

struct Request {
  std::vector<int32_t> tokens;
  std::vector<int32_t> blocks;
  int32_t done = 0;
};

// One step: `rows` next tokens of each request; the logits of every row.
std::vector<float> Step(Model& model, const std::vector<Request*>& requests,
                        const std::vector<int32_t>& rows) {
  std::vector<int32_t> tokens, positions;
  std::vector<ForwardBatch::Sequence> sequences;
  for (size_t i = 0; i < requests.size(); ++i) {
    Request& request = *requests[i];
    const auto first = static_cast<int32_t>(tokens.size());
    for (int32_t r = 0; r < rows[i]; ++r, ++request.done) {
      tokens.push_back(request.tokens[static_cast<size_t>(request.done)]);
      positions.push_back(request.done);
    }
    sequences.push_back({first, rows[i], request.done, request.blocks});
  }
  std::vector<int32_t> logit_rows(tokens.size());
  std::iota(logit_rows.begin(), logit_rows.end(), 0);
  std::vector<float> logits(tokens.size() * static_cast<size_t>(model.info().vocab_size));
  const Status status = model.Forward({tokens, positions, sequences, logit_rows}, logits);
  EXPECT_TRUE(status) << status.error().message;
  return logits;
}

// What the matrices are stored as: one type, or, as quantisers do it, several in one model.
struct Stored {
  const char* name;
  uint32_t width;  // whole blocks of the type
  std::function<GgmlType(const std::string& tensor)> type;
};

GgmlType MixedType(const std::string& tensor) {
  if (tensor.ends_with("attn_v.weight")) return GgmlType::kQ8_0;
  if (tensor.ends_with("ffn_down.weight") || tensor.ends_with("ffn_up_exps.weight")) {
    return GgmlType::kF16;
  }
  return GgmlType::kQ4_K;
}

const Stored kStored[] = {
    {"F32", 64, [](const std::string&) { return GgmlType::kF32; }},
    {"Q8_0", 64, [](const std::string&) { return GgmlType::kQ8_0; }},
    {"Q4_K", 256, [](const std::string&) { return GgmlType::kQ4_K; }},
    {"Mixed", 256, MixedType},
};

class ForwardTest : public ::testing::TestWithParam<std::tuple<const char*, Stored>> {
 protected:
  // `experts_used` where there are experts, of 8.
  std::unique_ptr<Model> Load(int threads = 1, KvDtype kv_dtype = KvDtype::kF16,
                              uint32_t experts_used = 2) const {
    const Stored& stored = std::get<1>(GetParam());
    TinyModel tiny;
    tiny.architecture = std::get<0>(GetParam());
    tiny.layers = 7;  // gemma3: with a global layer
    tiny.experts_used = experts_used;
    tiny.width = stored.width;
    tiny.head_dim = stored.width / tiny.heads;
    if (stored.width == 256) tiny.ffn_width = tiny.expert_ffn_width = 256;
    tiny.edit = [&](const std::string& name, std::vector<uint64_t>* dims, uint32_t* type) {
      if (dims->size() > 1) *type = static_cast<uint32_t>(stored.type(name));
      return true;
    };
    auto model = tiny.Load(threads, kv_dtype);
    EXPECT_TRUE(model) << model.error().message;
    EXPECT_TRUE((*model)->AllocateKv({kBlock, 32}));
    return std::move(model).value();
  }
  static std::vector<int32_t> Tokens(int n, int seed) {
    std::vector<int32_t> tokens;
    for (int i = 0; i < n; ++i) tokens.push_back((i * 7 + seed * 13 + i * i) % 50);
    return tokens;
  }
};
INSTANTIATE_TEST_SUITE_P(Families, ForwardTest,
                         ::testing::Combine(::testing::Values("llama", "gemma3", "qwen3moe"),
                                            ::testing::ValuesIn(kStored)),
                         [](const auto& info) {
                           return fmt::format("{}_{}", std::get<0>(info.param),
                                              std::get<1>(info.param).name);
                         });

// Equal bits of NaN would prove nothing.
TEST_P(ForwardTest, LogitsAreFiniteAndTellTokensApart) {
  Request request{Tokens(25, 1), {0, 1, 2, 3, 4, 5, 6}};
  const auto logits = Step(*Load(), {&request}, {25});
  for (float logit : logits) ASSERT_TRUE(std::isfinite(logit));
  EXPECT_GT(*std::max_element(logits.begin(), logits.end()) -
                *std::min_element(logits.begin(), logits.end()),
            0.01f);
}

TEST_P(ForwardTest, EveryRowOfTheLastStepCanBeReadAfterwards) {
  auto model = Load();
  Request request{Tokens(25, 1), {0, 1, 2, 3, 4, 5, 6}};
  const auto logits = Step(*model, {&request}, {25});
  const auto vocabulary = static_cast<size_t>(model->info().vocab_size);
  const std::vector<int32_t> rows = {3, 4, 24};
  std::vector<float> read(rows.size() * vocabulary);
  ASSERT_TRUE(model->ReadLogits(rows, read).ok());
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto* expected = logits.data() + static_cast<size_t>(rows[i]) * vocabulary;
    EXPECT_TRUE(std::equal(expected, expected + vocabulary, read.begin() + i * vocabulary)) << i;
  }
  // Hidden states do not depend on what else is read with them, and reading leaves them.
  const auto width = static_cast<size_t>(model->info().width);
  std::vector<float> together(rows.size() * width), alone(width), again(vocabulary);
  ASSERT_TRUE(model->ReadHidden(rows, together).ok());
  ASSERT_TRUE(model->ReadHidden(std::span(rows).subspan(1, 1), alone).ok());
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + width));
  EXPECT_FALSE(std::equal(alone.begin(), alone.end(), together.begin()));
  ASSERT_TRUE(model->ReadLogits(std::span(rows).subspan(1, 1), again).ok());
  EXPECT_TRUE(std::equal(again.begin(), again.end(), read.begin() + vocabulary));
  // RMS-normalised by a weight of about one.
  double power = 0;
  for (const float value : alone) power += double{value} * value;
  EXPECT_NEAR(std::sqrt(power / static_cast<double>(width)), 1, 0.2);
}

// Each dtype keeps so much of K and V; random weights make more of the difference from layer to
// layer. All experts are used: where some are chosen, a little rounding may change the choice.
TEST_P(ForwardTest, ACacheOfFewerBitsChangesLogitsByWhatItRounds) {
  const auto logits_of = [](Model& model) {
    Request request{Tokens(25, 1), {0, 1, 2, 3, 4, 5, 6}};
    return Step(model, {&request}, {25});
  };
  const auto full = logits_of(*Load(1, KvDtype::kF32, 8));
  double power = 0;
  for (const float logit : full) power += logit * logit;
  double previous = 0;
  double of_half = 0;
  for (const KvDtype dtype : kServedDtypes) {
    const auto rounded = logits_of(*Load(1, dtype, 8));
    double difference = 0;
    for (size_t i = 0; i < full.size(); ++i) {
      difference += (full[i] - rounded[i]) * (full[i] - rounded[i]);
    }
    EXPECT_GT(difference, previous) << KvDtypeName(dtype);
    if (dtype == KvDtype::kF16) {
      of_half = difference;
      EXPECT_LT(std::sqrt(difference / power), 0.03);
    } else {
      // Of a value's own size, binary16 rounds off 1.8e-4 (RMS), int8 0.5 % (a step is a 127th of
      // some 2.2 of it) and int4's V 9.7 %: 28 and 540 times as much; twice that is let pass.
      EXPECT_LT(std::sqrt(difference / of_half), dtype == KvDtype::kInt8 ? 56 : 1080)
          << KvDtypeName(dtype);
    }
    previous = difference;
  }
}

TEST_P(ForwardTest, ChunksOfAPromptGiveTheSameBitsAsTheWhole) {
  for (const KvDtype dtype : kServedDtypes) {
    const auto model = Load(1, dtype);
    Request whole{Tokens(25, 1), {5, 1, 9, 2, 30, 7, 0}};
    const auto expected = Step(*model, {&whole}, {25});
    for (const std::vector<int32_t>& cuts :
         {std::vector<int32_t>{1, 24}, {8, 8, 9}, {3, 1, 1, 13, 7}}) {
      Request cut{Tokens(25, 1), {11, 12, 13, 14, 15, 16, 17}};
      std::vector<float> logits;
      for (int32_t rows : cuts) {
        const auto part = Step(*model, {&cut}, {rows});
        logits.insert(logits.end(), part.begin(), part.end());
      }
      EXPECT_EQ(std::memcmp(logits.data(), expected.data(), expected.size() * sizeof(float)), 0)
          << KvDtypeName(dtype);
    }
  }
}

TEST_P(ForwardTest, ASequenceHasTheSameBitsAloneAndInABatch) {
  for (const KvDtype dtype : kServedDtypes) {
    const auto model = Load(1, dtype);
    Request alone{Tokens(12, 3), {0, 1, 2}};
    std::vector<float> expected = Step(*model, {&alone}, {11});
    const auto last = Step(*model, {&alone}, {1});
    expected.insert(expected.end(), last.begin(), last.end());

    Request other{Tokens(20, 4), {20, 21, 22, 23, 24}};
    Request among{Tokens(12, 3), {8, 4, 6}};
    Request third{Tokens(9, 5), {28, 29, 30}};
    Step(*model, {&other}, {7});
    std::vector<float> together = Step(*model, {&other, &among, &third}, {1, 11, 5});
    const size_t vocabulary = 50;
    together.erase(together.begin(), together.begin() + vocabulary);
    together.resize(11 * vocabulary);
    const auto decoded = Step(*model, {&other, &third, &among}, {1, 1, 1});
    together.insert(together.end(), decoded.begin() + 2 * vocabulary, decoded.end());
    ASSERT_EQ(together.size(), expected.size());
    EXPECT_EQ(std::memcmp(together.data(), expected.data(), expected.size() * sizeof(float)), 0)
        << KvDtypeName(dtype);
  }
}

TEST_P(ForwardTest, TheNumberOfThreadsDoesNotChangeABit) {
  for (const KvDtype dtype : kServedDtypes) {
    Request one{Tokens(25, 1), {0, 1, 2, 3, 4, 5, 6}};
    Request several = one;
    EXPECT_EQ(Step(*Load(1, dtype), {&one}, {25}), Step(*Load(3, dtype), {&several}, {25}))
        << KvDtypeName(dtype);
  }
}

// Of a context of several segments, threads take some each.
TEST(LongContext, TheNumberOfThreadsDoesNotChangeABit) {
  TinyModel tiny;
  tiny.context = 2048;
  std::vector<float> expected;
  for (const int threads : {1, 3}) {
    auto model = tiny.Load(threads);
    ASSERT_TRUE(model) << model.error().message;
    ASSERT_TRUE((*model)->AllocateKv({16, 100}));
    Request request{std::vector<int32_t>(1300), std::vector<int32_t>(82)};
    for (size_t i = 0; i < 1300; ++i) request.tokens[i] = static_cast<int32_t>(i * i % 47);
    std::iota(request.blocks.rbegin(), request.blocks.rend(), 3);
    std::vector<float> logits;
    for (const int32_t rows : {700, 500, 1, 7, 60}) {
      const std::vector<float> step = Step(**model, {&request}, {rows});
      logits.insert(logits.end(), step.begin(), step.end());
    }
    if (threads == 1) expected = logits;
    EXPECT_EQ(logits, expected);
  }
}

TEST_P(ForwardTest, OnlyTheRowsAskedForGetLogits) {
  const auto model = Load();
  Request request{Tokens(9, 2), {0, 1, 2}};
  const auto all = Step(*model, {&request}, {9});
  const std::vector<int32_t> tokens = Tokens(9, 2);
  std::vector<int32_t> positions(9);
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<int32_t> blocks = {3, 4, 5};
  const ForwardBatch::Sequence sequence{0, 9, 9, blocks};
  const std::vector<int32_t> rows = {2, 8};
  std::vector<float> logits(2 * 50 + 5, 777);
  ASSERT_TRUE(model->Forward({tokens, positions, std::span(&sequence, 1), rows}, logits));
  EXPECT_EQ(std::memcmp(logits.data(), all.data() + 2 * 50, 50 * sizeof(float)), 0);
  EXPECT_EQ(std::memcmp(logits.data() + 50, all.data() + 8 * 50, 50 * sizeof(float)), 0);
  EXPECT_EQ(logits[100], 777);
}

TEST_P(ForwardTest, AStepThatWantsNoLogitsIsFine) {
  const auto model = Load();
  const std::vector<int32_t> tokens = {1, 2};
  const std::vector<int32_t> positions = {0, 1};
  const std::vector<int32_t> blocks = {0};
  const ForwardBatch::Sequence sequence{0, 2, 2, blocks};
  EXPECT_TRUE(model->Forward({tokens, positions, std::span(&sequence, 1), {}}, {}));
}

// Seven layers, of which one is global: what is too far back for the local ones still counts
// through it.
TEST(Gemma3, LocalLayersDoNotSeeBeyondTheWindow) {
  TinyModel tiny;
  tiny.architecture = "gemma3";
  tiny.layers = 1;  // local only
  tiny.window = 3;
  auto model = tiny.Load();
  ASSERT_TRUE(model) << model.error().message;
  ASSERT_TRUE((*model)->AllocateKv({kBlock, 8}));
  std::vector<int32_t> tokens = {1, 2, 3, 4, 5, 6, 7, 8};
  Request first{tokens, {0, 1}};
  const auto before = Step(**model, {&first}, {8});
  tokens[4] = 40;  // position 7 sees 5, 6, 7; position 6 sees 4
  Request second{tokens, {2, 3}};
  const auto after = Step(**model, {&second}, {8});
  EXPECT_EQ(std::memcmp(before.data() + 7 * 50, after.data() + 7 * 50, 50 * sizeof(float)), 0);
  EXPECT_NE(std::memcmp(before.data() + 6 * 50, after.data() + 6 * 50, 50 * sizeof(float)), 0);
}

}  // namespace
}  // namespace quern::testing
