// Layers that see only their last tokens, with blocks of their own in the KV cache.

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "runtime/kv_cache/block_table.h"
#include "runtime/model/scoring.h"
#include "tests/unit/runtime/model/tiny_model.h"

namespace quern::testing {
namespace {

constexpr int32_t kBlockTokens = 4;
constexpr int32_t kWindow = 6;
constexpr int32_t kReach = 2;  // BlocksFor(kWindow - 1, kBlockTokens)
constexpr int32_t kLength = 60;

std::unique_ptr<Model> Load(KvDtype dtype) {
  TinyModel tiny;
  tiny.architecture = "gemma3";
  tiny.layers = 7;  // of which one sees everything
  tiny.window = kWindow;
  auto model = tiny.Load(1, dtype);
  EXPECT_TRUE(model) << model.error().message;
  return std::move(model).value();
}

std::vector<int32_t> Tokens(int seed) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < kLength; ++i) tokens.push_back((i * 7 + seed * 13 + i * i) % 50);
  return tokens;
}

// Logits of the next `rows` tokens.
std::vector<float> StepThrough(Model& model, std::span<const int32_t> tokens, int32_t done,
                               int32_t rows, std::span<const int32_t> blocks,
                               std::span<const int32_t> window_blocks) {
  std::vector<int32_t> positions(static_cast<size_t>(rows)), logit_rows(positions.size());
  std::iota(positions.begin(), positions.end(), done);
  std::iota(logit_rows.begin(), logit_rows.end(), 0);
  const ForwardBatch::Sequence sequence{0, rows, done + rows, blocks, window_blocks};
  std::vector<float> logits(positions.size() * 50);
  const Status status = model.Forward({tokens.subspan(static_cast<size_t>(done), positions.size()),
                                       positions, std::span(&sequence, 1), logit_rows},
                                      logits);
  EXPECT_TRUE(status) << status.error().message;
  return logits;
}

std::vector<int32_t> Counting(int32_t from) {
  std::vector<int32_t> blocks(static_cast<size_t>(BlocksFor(kLength, kBlockTokens)));
  std::iota(blocks.begin(), blocks.end(), from);
  return blocks;
}

// All layers keep all tokens.
std::vector<float> Reference(KvDtype dtype, const std::vector<int32_t>& tokens) {
  const auto model = Load(dtype);
  EXPECT_TRUE(model->AllocateKv({kBlockTokens, 32}));
  return StepThrough(*model, tokens, 0, kLength, Counting(0), {});
}

class Windows : public ::testing::TestWithParam<KvDtype> {};
INSTANTIATE_TEST_SUITE_P(Dtypes, Windows,
                         ::testing::Values(KvDtype::kF32, KvDtype::kF16, KvDtype::kInt8,
                                           KvDtype::kInt4),
                         [](const auto& info) { return KvDtypeName(info.param); });

// Two sequences take turns, with no block more than they need: what the one gives back, the other
// writes to at once.
TEST_P(Windows, BlocksThatAreGivenBackAndWrittenByOthersDoNotChangeABit) {
  const auto model = Load(GetParam());
  constexpr int32_t kMost = 7;  // rows of a step
  const auto window_blocks =
      static_cast<int32_t>(WindowBlocksInUse(kReach, kBlockTokens, 2, kMost));
  ASSERT_TRUE(model->AllocateKv({kBlockTokens, 40, window_blocks}));
  BlockPool pool(40, 0, PrefixIndex::DefaultHash, {.reach = kReach, .num_blocks = window_blocks});
  BlockTable tables[2];
  std::vector<float> logits[2];
  int32_t done[2] = {0, 0};
  for (int turn = 0; done[0] < kLength || done[1] < kLength; ++turn) {
    const int i = turn % 2;
    const int32_t rows = std::min(1 + turn * 5 % kMost, kLength - done[i]);
    if (rows == 0) continue;
    ASSERT_TRUE(tables[i].Grow(BlocksFor(done[i] + rows, kBlockTokens), pool));
    const auto part = StepThrough(*model, Tokens(i), done[i], rows, tables[i].blocks(),
                                  tables[i].window_blocks());
    logits[i].insert(logits[i].end(), part.begin(), part.end());
    done[i] += rows;
    tables[i].Slide(done[i], 1, kBlockTokens, pool);
  }
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(logits[i], Reference(GetParam(), Tokens(i))) << i;
    tables[i].Clear(pool);
  }
}

TEST_P(Windows, ScoringKeepsThemInARing) {
  const auto score = [](Model& model, const KvLayout& layout) {
    EXPECT_TRUE(model.AllocateKv(layout));
    std::vector<float> all;
    std::vector<int32_t> tokens;
    for (int i = 0; i < 300; ++i) tokens.push_back((i * 7 + i * i) % 50);
    const Status status =
        ScoreSequence(model, layout, tokens, {}, [&](int32_t, std::span<const float> logits) {
          all.insert(all.end(), logits.begin(), logits.end());
        });
    EXPECT_TRUE(status) << status.error().message;
    return all;
  };
  const auto model = Load(GetParam());
  const KvLayout layout = LayoutFor(model->info(), 300);
  EXPECT_EQ(layout.num_blocks, 19);
  EXPECT_EQ(layout.window_blocks, (kWindow - 1 + 64 + 2 * 16 - 2) / 16);
  EXPECT_EQ(score(*model, layout), score(*Load(GetParam()), {.num_blocks = 19}));
}

TEST(WindowLayers, NeedTheBlockOfTheFirstTokenThatTheySeeAndNoneBefore) {
  const auto model = Load(KvDtype::kF16);
  ASSERT_TRUE(model->AllocateKv({kBlockTokens, 20, 16}));
  const std::vector<int32_t> tokens = Tokens(0);
  std::vector<int32_t> windows = Counting(0);
  StepThrough(*model, tokens, 0, 8, Counting(0), windows);
  windows[0] = -1;
  // Position 8 sees 3 to 8, position 9 sees 4 to 9.
  EXPECT_DEATH(StepThrough(*model, tokens, 8, 1, Counting(0), windows), "");
  windows[0] = 0;
  StepThrough(*model, tokens, 8, 1, Counting(0), windows);
  windows[0] = -1;
  const auto next = StepThrough(*model, tokens, 9, 1, Counting(0), windows);
  const auto reference = Reference(KvDtype::kF16, tokens);
  EXPECT_TRUE(std::equal(next.begin(), next.end(), reference.begin() + 9 * 50));
}

TEST(WindowLayers, AreDescribedUnlessThereAreNoOthers) {
  const auto model = Load(KvDtype::kF16);
  EXPECT_EQ(model->info().layers, 7);
  EXPECT_EQ(model->info().window_layers, 6);
  EXPECT_EQ(model->info().window_tokens, kWindow);
  EXPECT_EQ(model->info().kv_window_bytes_per_token, model->info().kv_bytes_per_token / 7 * 6);
  TinyModel tiny;
  tiny.architecture = "gemma3";
  tiny.layers = 5;
  const auto local = tiny.Load();
  ASSERT_TRUE(local);
  EXPECT_EQ((*local)->info().window_layers, 0);
  EXPECT_EQ((*local)->info().kv_window_bytes_per_token, 0);
  EXPECT_EQ((*TinyModel().Load())->info().window_layers, 0);
}

}  // namespace
}  // namespace quern::testing
