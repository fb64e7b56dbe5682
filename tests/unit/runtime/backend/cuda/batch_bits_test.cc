// A sequence's logits do not depend on what else is in the batch, nor on how the layers are gone
// through, nor on where the layers with windows keep their tokens.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "runtime/kv_cache/block_table.h"
#include "runtime/model/scoring.h"
#include "tests/unit/runtime/backend/cuda/cuda_models.h"
#include "tests/unit/runtime/backend/cuda/traffic.h"

namespace quern::testing {
namespace {

constexpr int32_t kBlocks = 8;  // of each sequence

class BatchBitsTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    seed_ = std::random_device{}();
    random_.seed(seed_);
    RecordProperty("seed", std::to_string(seed_));
  }
  std::unique_ptr<Model> Load(KvDtype dtype = KvDtype::kF16, KvLayout layout = {}) {
    if (layout.num_blocks == 0) layout = {kBlockTokens, 6 * kBlocks};
    auto model = LoadOnCuda(SmallModel(GetParam()),
                            {.activations = kernels::ActivationType::kF16, .threads = 1}, dtype)
                     .model;
    const Status status = model->AllocateKv(layout);
    EXPECT_TRUE(status.ok()) << status.error().message;
    return model;
  }
  std::vector<int32_t> Chunks(int32_t least, int32_t most) {
    std::vector<int32_t> chunks;
    for (int i = 0; i < 64; ++i) {
      chunks.push_back(least +
                       static_cast<int32_t>(random_() % static_cast<uint32_t>(most - least + 1)));
    }
    return chunks;
  }
  static std::vector<int32_t> Prefix(const std::vector<int32_t>& tokens, int32_t count) {
    return {tokens.begin(), tokens.begin() + count};
  }

  uint32_t seed_ = 0;
  std::mt19937 random_;
};
INSTANTIATE_TEST_SUITE_P(Families, BatchBitsTest, ::testing::Values("llama", "gemma3"),
                         [](const auto& info) { return std::string(info.param); });

// Random traffic, then each of its sequences alone, in the same steps.
TEST_P(BatchBitsTest, ASequenceAloneHasTheBitsThatItHasInABatch) {
  const auto model = Load();
  struct Run {
    std::vector<int32_t> tokens, chunks, blocks;
    std::vector<float> logits;
    size_t done = 0;
  };
  std::vector<Run> runs(3);
  for (size_t s = 0; s < runs.size(); ++s) {
    runs[s].tokens = RandomTokens(random_, 30 + static_cast<int>(random_() % 40));
    runs[s].blocks = BlocksFrom(static_cast<int32_t>(s) * kBlocks, kBlocks);
    // A prompt in chunks, then tokens one by one: while one decodes, others may be at their prompt.
    runs[s].chunks = Chunks(1, 24);
    std::fill(runs[s].chunks.begin() + 2, runs[s].chunks.end(), 1);
  }
  for (size_t step = 0; step < 10; ++step) {
    StepBatch batch;
    std::vector<std::pair<size_t, size_t>> rows;  // run, rows
    for (size_t s = 0; s < runs.size(); ++s) {
      Run& run = runs[s];
      const bool here = step >= s && run.done < run.tokens.size();  // they join one by one
      if (!here) continue;
      const auto chunk = static_cast<size_t>(run.chunks[step - s]);
      const size_t count = std::min(chunk, run.tokens.size() - run.done);
      run.done += count;
      batch.Add(std::span(run.tokens).first(run.done), static_cast<int32_t>(count), run.blocks);
      rows.emplace_back(s, count);
    }
    const std::vector<float> logits = ForwardAll(*model, batch);
    const auto vocabulary = logits.size() / static_cast<size_t>(batch.rows());
    auto from = logits.begin();
    for (const auto& [s, count] : rows) {
      const auto end = from + static_cast<std::ptrdiff_t>(count * vocabulary);
      runs[s].logits.insert(runs[s].logits.end(), from, end);
      from = end;
    }
  }
  for (size_t s = 0; s < runs.size(); ++s) {
    Run& run = runs[s];
    const auto done = std::span(run.tokens).first(run.done);
    // Other blocks, too.
    EXPECT_EQ(RunInChunks(*model, done, BlocksFrom(5 * kBlocks, kBlocks), run.chunks), run.logits)
        << "sequence " << s << ", seed " << seed_;
  }
}

// Their tables' rows have the long one's room, and what is not used of it is not copied.
TEST_P(BatchBitsTest, ALongSequenceAndShortOnesHaveTheBitsThatEachHasAlone) {
  constexpr int32_t kLong = 6000, kShort = 60, kLongBlocks = kLong / kBlockTokens;
  const auto model = Load(KvDtype::kF16, {kBlockTokens, kLongBlocks + kShort});
  const auto vocabulary = static_cast<size_t>(model->info().vocab_size);
  const auto tokens = RandomTokens(random_, kLong);
  const auto place = static_cast<int32_t>(random_() % kShort);  // among the others
  const auto add = [&](StepBatch& batch, int32_t s) {  // what was before is zeros in the cache
    if (s == place) {
      batch.Add(tokens, 1, BlocksFrom(kShort, kLongBlocks));
    } else {
      batch.Add(std::span(tokens).subspan(static_cast<size_t>(s), 1), 1, BlocksFrom(s, 1));
    }
  };
  StepBatch all;
  for (int32_t s = 0; s < kShort; ++s) add(all, s);
  const std::vector<float> logits = ForwardAll(*model, all);
  for (int step = 0; step < 2; ++step) EXPECT_EQ(ForwardAll(*model, all), logits) << "recorded";
  for (const int32_t s : {place, 0, kShort - 1}) {
    StepBatch alone;
    add(alone, s);
    const auto from =
        logits.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(s) * vocabulary);
    EXPECT_EQ(ForwardAll(*model, alone),
              std::vector<float>(from, from + static_cast<std::ptrdiff_t>(vocabulary)))
        << "sequence " << s << ", the long one is " << place << ", seed " << seed_;
  }
}

// Not so with a window: the first token that a tile of rows reads is one that its first row sees.
class ChunkBitsTest : public BatchBitsTest {};
INSTANTIATE_TEST_SUITE_P(Families, ChunkBitsTest, ::testing::Values("llama"),
                         [](const auto& info) { return std::string(info.param); });

// More than four new tokens of a sequence go through prefill's attention, others through
// decoding's, where a short context is one split. Within each, cuts do not matter.
TEST_P(ChunkBitsTest, ChunksMayBeCutAnyhowAmongLargeAndAmongSmallOnes) {
  const auto model = Load();
  const auto tokens = RandomTokens(random_, 100);
  const auto blocks = BlocksFrom(3, kBlocks);
  const std::vector<int32_t> whole = {100}, ones(100, 1);
  const auto in_one = RunInChunks(*model, tokens, blocks, whole);
  std::vector<int32_t> large = Chunks(5, 40);
  int32_t sum = 0;  // the last of them has five, too
  std::erase_if(large, [&](int32_t chunk) { return (sum += chunk) > 95; });
  large.push_back(100);
  EXPECT_EQ(RunInChunks(*model, tokens, blocks, large), in_one) << "seed " << seed_;
  const auto one_by_one = RunInChunks(*model, std::span(tokens).first(40), blocks, ones);
  std::vector<int32_t> small = Chunks(1, 4);
  const auto in_fours = RunInChunks(*model, std::span(tokens).first(40), blocks, small);
  EXPECT_EQ(in_fours, one_by_one) << "seed " << seed_;
}

TEST_P(BatchBitsTest, AChunkThatGoesThroughTheLayersInSeveralStepsHasTheSame) {
  const int32_t layers = static_cast<int32_t>(SmallModel(GetParam()).layers);
  const auto stream = RandomTokens(random_, 12), prompt = RandomTokens(random_, 30);
  const auto stream_blocks = BlocksFrom(kBlocks, 2), prompt_blocks = BlocksFrom(0, 2);
  using Way = std::vector<std::pair<int32_t, int32_t>>;
  std::vector<Way> ways = {{{0, kAllLayers}}, {{0, 1}, {1, kAllLayers}}};
  if (layers > 2) ways.push_back({{0, 2}, {2, 3}, {3, layers - 1}, {layers - 1, kAllLayers}});
  std::vector<float> expected_stream, expected_prompt, expected_next;
  for (const Way& way : ways) {
    const auto model = Load();
    const auto vocabulary = static_cast<size_t>(model->info().vocab_size);
    StepBatch begin;
    begin.Add(Prefix(stream, 8), 8, stream_blocks);
    begin.Add(Prefix(prompt, 9), 9, prompt_blocks);
    ForwardAll(*model, begin);
    std::vector<float> streamed, prompted;
    int32_t position = 9;
    for (const auto& [first, end] : way) {
      StepBatch batch;
      batch.Add(Prefix(stream, position++), 1, stream_blocks);
      batch.Add(Prefix(prompt, 29), 20, prompt_blocks);
      const bool waits = end != kAllLayers;
      ForwardBatch step = batch.batch(true, first, end);
      if (waits) step.logit_rows = step.logit_rows.first(1);
      std::vector<float> logits(step.logit_rows.size() * vocabulary);
      const Status status = model->Forward(step, logits);
      ASSERT_TRUE(status.ok()) << status.error().message;
      const auto own = logits.begin() + static_cast<std::ptrdiff_t>(vocabulary);
      streamed.insert(streamed.end(), logits.begin(), own);
      prompted.assign(own, logits.end());
    }
    while (position <= 12) {
      StepBatch batch;
      batch.Add(Prefix(stream, position++), 1, stream_blocks);
      const auto more = ForwardAll(*model, batch);
      streamed.insert(streamed.end(), more.begin(), more.end());
    }
    StepBatch last;  // shows what the layers wrote to the cache
    last.Add(prompt, 1, prompt_blocks);
    const auto next = ForwardAll(*model, last);
    if (expected_stream.empty()) {
      expected_stream = streamed, expected_prompt = prompted, expected_next = next;
    }
    EXPECT_EQ(streamed, expected_stream) << "seed " << seed_;
    EXPECT_EQ(prompted, expected_prompt) << "seed " << seed_;
    EXPECT_EQ(next, expected_next) << "seed " << seed_;
  }
}

// Products choose their kernel's shape by the number of rows: up to 8, 16, 32, 64 and more; here
// each of them has a row that must not show it. A product that cuts its sums by the batch fails.
struct TypeCase {
  const char* name;
  GgmlType type;
  kernels::ActivationType activations;
};
void PrintTo(const TypeCase& c, std::ostream* out) { *out << c.name; }

class WeightTypeBitsTest : public ::testing::TestWithParam<TypeCase> {};
constexpr TypeCase kTypeCases[] = {
    {"Q8_0", GgmlType::kQ8_0, kernels::ActivationType::kF16},
    {"Q4_0", GgmlType::kQ4_0, kernels::ActivationType::kBF16},
    {"Q4_1", GgmlType::kQ4_1, kernels::ActivationType::kF16},
};
INSTANTIATE_TEST_SUITE_P(Types, WeightTypeBitsTest, ::testing::ValuesIn(kTypeCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(WeightTypeBitsTest, ATokenHasTheSameAmongManyAndBesideAPrompt) {
  constexpr int kMost = 70;
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  TinyModel tiny = SmallModel();
  tiny.type = GetParam().type;
  tiny.layers = 1;
  tiny.width = tiny.ffn_width = 256;  // two groups of 32 in each slice of a sum
  const auto model = LoadOnCuda(tiny, {.activations = GetParam().activations, .threads = 1}).model;
  ASSERT_TRUE(model);
  const Status kv = model->AllocateKv({kBlockTokens, kMost + kBlocks});
  ASSERT_TRUE(kv.ok()) << kv.error().message;
  const std::vector<int32_t> tokens = RandomTokens(random, kMost);
  const std::vector<int32_t> prompt = RandomTokens(random, kMost);
  // The first tokens of so many sequences, and the prompt of another beside them.
  const auto logits_of = [&](int count, int32_t prompt_rows = 0) {
    StepBatch batch;
    for (int s = 0; s < count; ++s) {
      batch.Add(std::span(tokens).subspan(static_cast<size_t>(s), 1), 1, BlocksFrom(s, 1));
    }
    if (prompt_rows > 0) {
      batch.Add(std::span(prompt).first(static_cast<size_t>(prompt_rows)), prompt_rows,
                BlocksFrom(kMost, kBlocks));
    }
    std::vector<float> logits = ForwardAll(*model, batch);
    logits.resize(static_cast<size_t>(count) * static_cast<size_t>(model->info().vocab_size));
    return logits;
  };
  const std::vector<float> all = logits_of(kMost);
  const auto expect_same = [&](const std::vector<float>& logits) {
    EXPECT_TRUE(std::equal(logits.begin(), logits.end(), all.begin()));
  };
  for (const int count : {1, 3, 17}) {
    SCOPED_TRACE(std::to_string(count) + " tokens");
    expect_same(logits_of(count));
  }
  SCOPED_TRACE("beside a prompt");
  expect_same(logits_of(3, 37));
}

class WindowBlocksTest : public BatchBitsTest {};
INSTANTIATE_TEST_SUITE_P(Families, WindowBlocksTest, ::testing::Values("gemma3"),
                         [](const auto& info) { return std::string(info.param); });

// Two sequences take turns with no block more than they need: what the one gives back, the other
// writes to at once.
TEST_P(WindowBlocksTest, BlocksOfTheirOwnDoNotChangeABit) {
  constexpr int32_t kLength = 70, kMost = 20;
  const int32_t reach = BlocksFor(12 - 1, kBlockTokens);
  const auto window_blocks = static_cast<int32_t>(WindowBlocksInUse(reach, kBlockTokens, 2, kMost));
  const auto own = Load(KvDtype::kF16, {kBlockTokens, 12, window_blocks});
  BlockPool pool(12, 0, PrefixIndex::DefaultHash, {.reach = reach, .num_blocks = window_blocks});
  BlockTable tables[2];
  std::vector<int32_t> tokens[2], chunks[2];
  std::vector<float> logits[2];
  int32_t done[2] = {0, 0};
  for (int i = 0; i < 2; ++i)
    tokens[i] = RandomTokens(random_, kLength), chunks[i] = Chunks(1, kMost);
  for (size_t turn = 0; done[0] < kLength || done[1] < kLength; ++turn) {
    const size_t i = turn % 2;
    const int32_t rows = std::min(chunks[i][turn / 2], kLength - done[i]);
    if (rows == 0) continue;
    done[i] += rows;
    ASSERT_TRUE(tables[i].Grow(BlocksFor(done[i], kBlockTokens), pool));
    StepBatch batch;
    const auto blocks = tables[i].blocks();
    const auto windows = tables[i].window_blocks();
    batch.Add(std::span(tokens[i]).first(static_cast<size_t>(done[i])), rows,
              {blocks.begin(), blocks.end()}, {windows.begin(), windows.end()});
    const auto part = ForwardAll(*own, batch);
    logits[i].insert(logits[i].end(), part.begin(), part.end());
    tables[i].Slide(done[i], 1, kBlockTokens, pool);
  }
  const auto shared = Load();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(RunInChunks(*shared, tokens[i], BlocksFrom(0, kBlocks), chunks[i]), logits[i])
        << "seed " << seed_;
    tables[i].Clear(pool);
  }
}

TEST_P(WindowBlocksTest, ScoringKeepsThemInARing) {
  const auto tokens = RandomTokens(random_, 200);
  const auto score = [&](const KvLayout& layout) {
    const auto model = Load(KvDtype::kInt8, layout);
    std::vector<float> all;
    const Status status =
        ScoreSequence(*model, layout, tokens, {}, [&](int32_t, std::span<const float> logits) {
          all.insert(all.end(), logits.begin(), logits.end());
        });
    EXPECT_TRUE(status.ok()) << status.error().message;
    return all;
  };
  const KvLayout layout = LayoutFor(Load()->info(), 200);
  ASSERT_GT(layout.window_blocks, 0);
  EXPECT_EQ(score(layout), score({layout.block_tokens, layout.num_blocks})) << "seed " << seed_;
}

}  // namespace
}  // namespace quern::testing
