// What a step's kernels read of its batch: sizes, places in the block, and what is written there.

#include "runtime/backend/cuda/step_inputs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <set>

namespace quern::testing {
namespace {

constexpr int32_t kMostRows = 512;
constexpr int32_t kWholeContext = 1 << 30;

// Sequences with one new token each.
std::vector<ForwardBatch::Sequence> Decoding(int32_t count, int32_t context) {
  std::vector<ForwardBatch::Sequence> sequences;
  for (int32_t i = 0; i < count; ++i) sequences.push_back({i, 1, context, {}});
  return sequences;
}

StepSize SizeOfDecoding(int32_t count, int32_t context, int32_t most_rows = kMostRows) {
  const auto sequences = Decoding(count, context);
  const std::vector<int32_t> tokens(static_cast<size_t>(count));
  return SizeOf({tokens, tokens, sequences, {}}, most_rows);
}

TEST(StepSizes, AreFilledUpByLittleAndAreFew) {
  std::set<int32_t> sizes;
  for (int32_t rows = 1; rows <= 600; ++rows) {
    SCOPED_TRACE(rows);
    const StepSize size = SizeOfDecoding(rows, 100);
    EXPECT_EQ(size.padded, rows <= kMostRows);
    EXPECT_EQ(size.rows, size.sequences);
    if (!size.padded) {
      EXPECT_EQ(size, (StepSize{rows, rows, 100, false}));
      continue;
    }
    sizes.insert(size.rows);
    EXPECT_GE(size.rows, rows);
    EXPECT_EQ(SizeOfDecoding(size.rows, 100), size);
    if (rows <= 8) {
      EXPECT_EQ(size.rows, static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(rows))));
    } else {
      EXPECT_EQ(size.rows % 8, 0);
      EXPECT_LE(size.rows - rows, std::max(7, rows / 8));
    }
  }
  EXPECT_LE(sizes.size(), 35u);
  EXPECT_EQ(*sizes.rbegin(), kMostRows);
}

TEST(StepSizes, ContextsArePowersOfTwo) {
  std::mt19937 random(std::random_device{}());
  for (int i = 0; i < 1000; ++i) {
    const auto context = static_cast<int32_t>((1 + random() % kWholeContext) >> random() % 30);
    SCOPED_TRACE(context);
    const int32_t filled = SizeOfDecoding(2, std::max(1, context)).context_tokens;
    EXPECT_TRUE(std::has_single_bit(static_cast<uint32_t>(filled)));
    EXPECT_GE(filled, context);
    EXPECT_TRUE(filled == 256 || filled / 2 < context);
  }
  EXPECT_EQ(SizeOfDecoding(1, kWholeContext).context_tokens, kWholeContext);
  EXPECT_EQ(SizeOfDecoding(1, 257).context_tokens, 512);
  auto sequences = Decoding(3, 20);
  sequences[1].context_tokens = 1000;
  const std::vector<int32_t> tokens(3);
  EXPECT_EQ(SizeOf({tokens, tokens, sequences, {}}, kMostRows).context_tokens, 1024);
}

TEST(StepSizes, WhatIsNotDecodingAloneIsLeftAsItIs) {
  EXPECT_EQ(SizeOfDecoding(5, 77, 0), (StepSize{5, 5, 77, false}));
  EXPECT_EQ(SizeOfDecoding(9, 77, 15), (StepSize{9, 9, 77, false})) << "16 are too many";
  EXPECT_EQ(SizeOf({}, kMostRows), (StepSize{0, 0, 0, false}));
  std::vector<int32_t> tokens(4);
  auto sequences = Decoding(3, 50);
  sequences[2].num_rows = 2;
  EXPECT_EQ(SizeOf({tokens, tokens, sequences, {}}, kMostRows), (StepSize{4, 3, 50, false}));
  sequences[2].num_rows = 1;
  tokens.resize(3);
  ForwardBatch batch{tokens, tokens, sequences, {}};
  EXPECT_TRUE(SizeOf(batch, kMostRows).padded);
  batch.first_layer = 1;
  EXPECT_FALSE(SizeOf(batch, kMostRows).padded);
  batch.first_layer = 0;
  batch.end_layer = 2;
  EXPECT_FALSE(SizeOf(batch, kMostRows).padded);
}

TEST(StepLayouts, ArraysAreAlignedAndApart) {
  std::mt19937 random(std::random_device{}());
  for (int i = 0; i < 500; ++i) {
    const auto below = [&](uint32_t most) { return static_cast<int32_t>(random() % most); };
    const StepSize size{1 + below(700), 1 + below(90), 1 + below(9000), false};
    const StepKv kv{16 << below(3), 1 + below(2), {100, 100}, 64};
    const StepLayout layout(size, kv);
    EXPECT_EQ(layout.table_stride, (size.context_tokens + kv.block_tokens - 1) / kv.block_tokens);
    const auto rows = static_cast<size_t>(size.rows);
    const auto sequences = static_cast<size_t>(size.sequences);
    const size_t table = 4 * sequences * static_cast<size_t>(layout.table_stride);
    std::vector<std::pair<size_t, size_t>> arrays = {{layout.tokens, 4 * rows},
                                                     {layout.positions, 4 * rows},
                                                     {layout.query_begins, 4 * (sequences + 1)},
                                                     {layout.contexts, 4 * sequences}};
    for (int group = 0; group < kv.groups; ++group) {
      arrays.emplace_back(layout.places[group], 8 * rows);
      arrays.emplace_back(layout.tables[group], table);
    }
    std::ranges::sort(arrays);
    size_t end = 0;
    for (const auto& [at, bytes] : arrays) {
      EXPECT_EQ(at % 16, 0u);
      EXPECT_GE(at, end);
      end = at + bytes;
    }
    EXPECT_GE(layout.bytes, end);
    EXPECT_LE(layout.bytes, end + 15);
  }
}

// Random sequences whose blocks are spread over the cache.
struct Written {
  std::vector<int32_t> tokens, positions;
  std::vector<std::vector<int32_t>> blocks[2];
  std::vector<ForwardBatch::Sequence> sequences;
  StepKv kv;
  StepSize size;
  std::vector<std::byte> bytes;

  // `most` new tokens of each.
  Written(std::mt19937& random, int32_t count, uint32_t most, int groups)
      : kv{16 << random() % 3, groups, {5000, 300}, groups == 2 ? 40 : 0} {
    for (int32_t s = 0; s < count; ++s) {
      const auto rows = static_cast<int32_t>(1 + random() % most);
      const auto before = static_cast<int32_t>(random() % 300);
      for (int group = 0; group < groups; ++group) {
        // Some more than are needed: they were allocated ahead.
        std::vector<int32_t> mine(static_cast<size_t>((before + rows - 1) / kv.block_tokens) + 1 +
                                  random() % 3);
        for (size_t i = 0; i < mine.size(); ++i) {
          const bool seen =
              (static_cast<int32_t>(i) + 1) * kv.block_tokens > before - kv.window + 1;
          mine[i] = group == 1 && !seen
                        ? -1
                        : static_cast<int32_t>(random() % static_cast<uint32_t>(kv.blocks[group]));
        }
        blocks[group].push_back(std::move(mine));
      }
      sequences.push_back({static_cast<int32_t>(tokens.size()), rows, before + rows, {}});
      for (int32_t i = 0; i < rows; ++i) {
        tokens.push_back(static_cast<int32_t>(random() % 100000));
        positions.push_back(before + i);
      }
    }
    for (size_t s = 0; s < sequences.size(); ++s) {
      sequences[s].blocks = blocks[0][s];
      if (groups == 2) sequences[s].window_blocks = blocks[1][s];
    }
  }
  void Write() {
    const ForwardBatch batch{tokens, positions, sequences, {}};
    size = SizeOf(batch, kMostRows);
    const StepLayout layout(size, kv);
    bytes.assign(layout.bytes + 16, std::byte{0xab});
    WriteStepInputs(batch, size, layout, kv, bytes.data());
    for (size_t i = layout.bytes; i < bytes.size(); ++i) {
      ASSERT_EQ(bytes[i], std::byte{0xab}) << "written beyond its end";
    }
  }
  template <typename T>
  T At(size_t offset, size_t index) const {
    T value;
    std::memcpy(&value, bytes.data() + offset + index * sizeof(T), sizeof(T));
    return value;
  }
};

void ExpectRows(const Written& w, const StepLayout& layout) {
  for (size_t row = 0; row < static_cast<size_t>(w.size.rows); ++row) {
    const bool there = row < w.tokens.size();
    ASSERT_EQ(w.At<int32_t>(layout.tokens, row), there ? w.tokens[row] : 0);
    ASSERT_EQ(w.At<int32_t>(layout.positions, row), there ? w.positions[row] : 0);
    for (int group = 0; group < w.kv.groups && !there; ++group) {
      ASSERT_EQ(w.At<int64_t>(layout.places[group], row), -1);
    }
  }
}

void ExpectSequence(const Written& w, const StepLayout& layout, size_t s) {
  const bool there = s < w.sequences.size();
  ASSERT_EQ(w.At<int32_t>(layout.query_begins, s),
            there ? w.sequences[s].first_row : static_cast<int32_t>(w.tokens.size()));
  ASSERT_EQ(w.At<int32_t>(layout.contexts, s), there ? w.sequences[s].context_tokens : 1);
  const auto stride = static_cast<size_t>(layout.table_stride);
  for (int group = 0; group < w.kv.groups; ++group) {
    const std::vector<int32_t> blocks = there ? w.blocks[group][s] : std::vector<int32_t>{};
    for (size_t i = 0; i < stride; ++i) {
      ASSERT_EQ(w.At<int32_t>(layout.tables[group], s * stride + i),
                i < blocks.size() ? blocks[i] : 0);
    }
    if (!there) continue;
    for (int32_t i = 0; i < w.sequences[s].num_rows; ++i) {
      const auto row = static_cast<size_t>(w.sequences[s].first_row + i);
      const int32_t position = w.positions[row];
      const int64_t block = blocks[static_cast<size_t>(position / w.kv.block_tokens)];
      ASSERT_EQ(w.At<int64_t>(layout.places[group], row),
                block * w.kv.block_tokens + position % w.kv.block_tokens);
    }
  }
}

TEST(StepInputs, HoldTheBatchAndNothingElse) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  int filled = 0;
  for (int i = 0; i < 400; ++i) {
    Written w(random, static_cast<int32_t>(1 + random() % 40), random() % 2 == 0 ? 1 : 30,
              static_cast<int>(1 + random() % 2));
    ASSERT_NO_FATAL_FAILURE(w.Write());
    const StepLayout layout(w.size, w.kv);
    ASSERT_NO_FATAL_FAILURE(ExpectRows(w, layout));
    for (size_t s = 0; s < static_cast<size_t>(w.size.sequences); ++s) {
      ASSERT_NO_FATAL_FAILURE(ExpectSequence(w, layout, s));
    }
    ASSERT_EQ(w.At<int32_t>(layout.query_begins, static_cast<size_t>(w.size.sequences)),
              static_cast<int32_t>(w.tokens.size()));
    filled += w.size.rows > static_cast<int32_t>(w.tokens.size());
  }
  EXPECT_GT(filled, 20);
}

// Of one sequence: 20 tokens were there, 3 are new, and the window has 10.
class StepInputsDeathTest : public ::testing::Test {
 protected:
  void Write(std::vector<int32_t> blocks, std::vector<int32_t> window_blocks) {
    const StepKv kv{16, 2, {7, 5}, 10};
    const std::vector<int32_t> tokens(3), positions = {20, 21, 22};
    const ForwardBatch::Sequence sequence{0, 3, 23, blocks, window_blocks};
    const ForwardBatch batch{tokens, positions, std::span(&sequence, 1), {}};
    const StepSize size = SizeOf(batch, kMostRows);
    const StepLayout layout(size, kv);
    std::vector<std::byte> bytes(layout.bytes);
    WriteStepInputs(batch, size, layout, kv, bytes.data());
  }
};

TEST_F(StepInputsDeathTest, ABlockThatIsMissingOrForeignStopsTheProcess) {
  Write({0, 6}, {4, 0});
  EXPECT_DEATH(Write({0}, {4, 0}), "") << "too few";
  EXPECT_DEATH(Write({}, {4, 0}), "");
  EXPECT_DEATH(Write({0, 7}, {4, 0}), "") << "beyond the cache";
  EXPECT_DEATH(Write({-1, 6}, {4, 0}), "") << "all layers see the first token";
  EXPECT_DEATH(Write({0, 6}, {4}), "");
  EXPECT_DEATH(Write({0, 6}, {4, 5}), "") << "there in the other group alone";
  EXPECT_DEATH(Write({0, 6}, {-1, 0}), "") << "row 20 sees 11 to 20";
}

TEST_F(StepInputsDeathTest, BlocksBeforeTheWindowMayBeGone) {
  const StepKv kv{16, 2, {7, 5}, 5};
  const std::vector<int32_t> token(1), position = {20}, blocks = {0, 1}, windows = {-1, 3};
  const ForwardBatch::Sequence sequence{0, 1, 21, blocks, windows};
  const ForwardBatch batch{token, position, std::span(&sequence, 1), {}};
  const StepSize size = SizeOf(batch, kMostRows);
  const StepLayout layout(size, kv);
  std::vector<std::byte> bytes(layout.bytes);
  WriteStepInputs(batch, size, layout, kv, bytes.data());  // row 20 sees 16 to 20
  int64_t place;
  std::memcpy(&place, bytes.data() + layout.places[1], sizeof(place));
  EXPECT_EQ(place, 3 * 16 + 4);
}

TEST(AttentionRunsOf, AreCutWhereDecodingAndPrefillMeet) {
  const auto runs_of = [](const std::vector<std::pair<int32_t, int32_t>>& rows_and_contexts) {
    std::vector<ForwardBatch::Sequence> sequences;
    int32_t first = 0;
    for (const auto& [rows, context] : rows_and_contexts) {
      sequences.push_back({std::exchange(first, first + rows), rows, context, {}});
    }
    return AttentionRuns(sequences);
  };
  EXPECT_TRUE(runs_of({}).empty());
  const auto runs = runs_of({{1, 50}, {4, 70}, {1, 9}, {5, 5}, {60, 90}, {1, 2}, {30, 31}});
  const std::vector<AttentionRun> expected = {
      {0, 3, 4, 70, true}, {3, 2, 60, 90, false}, {5, 1, 1, 2, true}, {6, 1, 30, 31, false}};
  ASSERT_EQ(runs.size(), expected.size());
  for (size_t i = 0; i < runs.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(runs[i].first, expected[i].first);
    EXPECT_EQ(runs[i].count, expected[i].count);
    EXPECT_EQ(runs[i].most_queries, expected[i].most_queries);
    EXPECT_EQ(runs[i].longest_context, expected[i].longest_context);
    EXPECT_EQ(runs[i].decode, expected[i].decode);
  }
}

}  // namespace
}  // namespace quern::testing
