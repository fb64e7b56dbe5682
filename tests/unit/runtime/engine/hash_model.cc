#include "tests/unit/runtime/engine/hash_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

namespace quern {
namespace {

uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

uint64_t Hash(std::span<const TokenId> context) {
  uint64_t hash = 0;
  for (const TokenId token : context) hash = Mix(hash ^ static_cast<uint64_t>(token + 7));
  return hash;
}

}  // namespace

TokenId HashModel::HashNext(std::span<const TokenId> context) {
  return static_cast<TokenId>(Hash(context) % kVocabSize);
}

HashModel::HashModel(Next next, int32_t window) : next_(std::move(next)) {
  info_ = {.architecture = "hash",
           .name = "hash",
           .quantization = "F32",
           .vocab_size = kVocabSize,
           .width = kWidth,
           .context_tokens = kContext,
           .parameters = 1,
           .weight_bytes = 4,
           .kv_bytes_per_token = kKvBytesPerToken,
           .layers = kLayers};
  if (window == 0) return;
  info_.window_layers = 1;
  info_.window_tokens = window;
  info_.kv_window_bytes_per_token = kKvBytesPerToken / 2;
}

Status HashModel::AllocateKv(const KvLayout& layout) {
  EXPECT_TRUE(slots_.empty()) << "the KV cache is allocated once";
  layout_ = layout;
  const auto slots = [&](int32_t blocks) {
    return static_cast<size_t>(blocks) * static_cast<size_t>(layout.block_tokens);
  };
  slots_.assign(slots(layout.num_blocks), -1);
  window_slots_.assign(slots(layout.window_blocks), -1);
  return {};
}

// Of the blocks of one kind: all that a step needs are there, and only their sequence writes to
// them.
void HashModel::CheckBlocks(const ForwardBatch& batch, bool windows) const {
  std::set<int32_t> seen, written;
  for (const auto& sequence : batch.sequences) {
    const auto blocks = windows ? sequence.window_blocks : sequence.blocks;
    EXPECT_GE(static_cast<int64_t>(blocks.size()) * layout_.block_tokens, sequence.context_tokens);
    const int32_t cached = sequence.context_tokens - sequence.num_rows;
    const int32_t first_written = cached / layout_.block_tokens;
    // The first token that is seen from the last border of a block before the step.
    const int32_t border = first_written * layout_.block_tokens;
    const int32_t kept =
        windows ? std::max(0, border - info_.window_tokens + 1) / layout_.block_tokens : 0;
    for (int32_t i = 0; i < static_cast<int32_t>(blocks.size()); ++i) {
      const int32_t block = blocks[static_cast<size_t>(i)];
      if (i < kept) {
        EXPECT_EQ(block, -1) << "a block behind the window is kept";
        continue;
      }
      EXPECT_TRUE(block >= 0 && block < (windows ? layout_.window_blocks : layout_.num_blocks));
      const bool shared = !seen.insert(block).second;
      if (i >= first_written) {
        EXPECT_TRUE(written.insert(block).second && !shared)
            << "block " << block << " is written by one sequence and belongs to another";
      } else {
        EXPECT_FALSE(written.contains(block)) << "block " << block << " is read while written";
      }
    }
  }
}

void HashModel::CheckBatch(const ForwardBatch& batch) const {
  CheckBlocks(batch, false);
  if (layout_.window_blocks > 0) CheckBlocks(batch, true);
  std::set<int32_t> last_rows;
  int32_t row = 0;
  for (const auto& sequence : batch.sequences) {
    EXPECT_EQ(sequence.first_row, row);
    EXPECT_GE(sequence.num_rows, 1);
    EXPECT_EQ(sequence.window_blocks.empty(), layout_.window_blocks == 0);
    for (int32_t i = 0; i < sequence.num_rows; ++i) {
      const size_t at = static_cast<size_t>(row + i);
      EXPECT_EQ(batch.positions[at], sequence.context_tokens - sequence.num_rows + i);
      EXPECT_TRUE(batch.tokens[at] >= 0 && batch.tokens[at] < kVocabSize);
    }
    row += sequence.num_rows;
    last_rows.insert(row - 1);
  }
  EXPECT_EQ(static_cast<size_t>(row), batch.tokens.size());
  EXPECT_EQ(batch.tokens.size(), batch.positions.size());
  int32_t previous = -1;
  for (const int32_t wanted : batch.logit_rows) {
    EXPECT_GT(wanted, previous);
    EXPECT_TRUE(last_rows.contains(wanted));
    previous = wanted;
  }
}

size_t HashModel::SlotOf(std::span<const int32_t> blocks, int32_t position) const {
  const auto width = static_cast<size_t>(layout_.block_tokens);
  const auto at = static_cast<size_t>(position);
  return static_cast<size_t>(blocks[at / width]) * width + at % width;
}

// What every row of the step sees of the layer with the window.
void HashModel::CheckWindow(const ForwardBatch::Sequence& sequence) const {
  const int32_t first_row = sequence.context_tokens - sequence.num_rows;
  for (int32_t i = std::max(0, first_row - info_.window_tokens + 1); i < sequence.context_tokens;
       ++i) {
    EXPECT_EQ(window_slots_.at(SlotOf(sequence.window_blocks, i)),
              slots_.at(SlotOf(sequence.blocks, i)))
        << "of " << sequence.context_tokens << " tokens the one at " << i
        << " is not in the window's blocks";
  }
}

Status HashModel::Forward(const ForwardBatch& batch, std::span<float> logits) {
  ++forwards_;
  if (on_forward) QUERN_TRY(on_forward(batch));
  CheckBatch(batch);
  EXPECT_EQ(logits.size(), batch.logit_rows.size() * kVocabSize);
  const bool windows = layout_.window_blocks > 0;
  const bool complete = Complete(batch);
  rows_.clear();
  for (const auto& sequence : batch.sequences) {
    if (!complete && &sequence == &batch.sequences.back()) break;
    for (int32_t row = sequence.first_row; row < sequence.first_row + sequence.num_rows; ++row) {
      const auto at = static_cast<size_t>(row);
      const int32_t position = batch.positions[at];
      rows_.push_back({{sequence.blocks.begin(), sequence.blocks.end()}, position});
      slots_[SlotOf(sequence.blocks, position)] = batch.tokens[at];
      if (windows) window_slots_[SlotOf(sequence.window_blocks, position)] = batch.tokens[at];
    }
    if (windows) CheckWindow(sequence);
  }
  QUERN_TRY(ReadLogits(batch.logit_rows, logits));
  DropUnwanted(batch, logits);
  return {};
}

// As a backend may: no more than what was asked for is there.
void HashModel::DropUnwanted(const ForwardBatch& batch, std::span<float> logits) {
  EXPECT_TRUE(batch.logit_ranks.empty() || batch.logit_ranks.size() == batch.logit_rows.size());
  for (size_t i = 0; i < batch.logit_ranks.size(); ++i) {
    const std::span<float> row = logits.subspan(i * kVocabSize, kVocabSize);
    const auto rank = static_cast<size_t>(batch.logit_ranks[i]);
    const bool finite = std::ranges::all_of(row, [](float x) { return std::isfinite(x); });
    if (rank == 0 || rank >= row.size() || !finite) continue;
    std::vector<float> sorted(row.begin(), row.end());
    std::ranges::nth_element(sorted, sorted.begin() + static_cast<std::ptrdiff_t>(rank - 1),
                             std::greater<>());
    for (float& logit : row) {
      if (logit < sorted[rank - 1]) logit = kNotAmongGreatest;
    }
  }
}

bool HashModel::Complete(const ForwardBatch& batch) {
  if (batch.sequences.empty()) return true;
  const auto& last = batch.sequences.back();
  const auto rows =
      batch.tokens.subspan(static_cast<size_t>(last.first_row), static_cast<size_t>(last.num_rows));
  Held now{{rows.begin(), rows.end()},
           {last.blocks.begin(), last.blocks.end()},
           last.context_tokens,
           std::min(batch.end_layer, kLayers)};
  EXPECT_GT(now.layers, batch.first_layer);
  if (batch.first_layer > 0) {
    EXPECT_EQ(batch.first_layer, held_.layers);
    EXPECT_TRUE(now.tokens == held_.tokens && now.blocks == held_.blocks &&
                now.context_tokens == held_.context_tokens)
        << "another chunk than the one that is held";
  }
  const bool complete = now.layers == kLayers;
  if (batch.first_layer > 0 || !complete) held_ = complete ? Held{} : std::move(now);
  if (!complete && !batch.logit_rows.empty()) {
    EXPECT_LT(batch.logit_rows.back(), last.first_row) << "logits of rows that are not complete";
  }
  return complete;
}

Status HashModel::ReadLogits(std::span<const int32_t> rows, std::span<float> logits) {
  EXPECT_EQ(logits.size(), rows.size() * kVocabSize);
  for (size_t i = 0; i < rows.size(); ++i) {
    WriteLogits(ContextOf(rows[i]), logits.subspan(i * kVocabSize, kVocabSize));
  }
  return {};
}

Status HashModel::ReadHidden(std::span<const int32_t> rows, std::span<float> hidden) {
  EXPECT_EQ(hidden.size(), rows.size() * kWidth);
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<TokenId> context = ContextOf(rows[i]);
    hidden[i * kWidth] = static_cast<float>(context.size() - 1);
    hidden[i * kWidth + 1] = static_cast<float>(context.back());
    hidden[i * kWidth + 2] = static_cast<float>(Hash(context) % 1000);
  }
  return {};
}

std::vector<TokenId> HashModel::ContextOf(int32_t row) const {
  const Row& of = rows_[static_cast<size_t>(row)];
  std::vector<TokenId> context;
  for (int32_t i = 0; i <= of.position; ++i) context.push_back(slots_[SlotOf(of.blocks, i)]);
  return context;
}

void HashModel::WriteLogits(std::span<const TokenId> context, std::span<float> row) const {
  const uint64_t hash = Hash(context);
  for (size_t id = 0; id < row.size(); ++id) {
    row[id] = static_cast<float>(Mix(hash + id) >> 40) * 0x1.0p-24f;  // [0, 1)
  }
  row[static_cast<size_t>(next_(context))] += confidence;
  for (const TokenId token : context) {
    if (token == poison) row[17] = std::nanf("");
  }
}

}  // namespace quern
