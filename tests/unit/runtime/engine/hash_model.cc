#include "tests/unit/runtime/engine/hash_model.h"

#include <gtest/gtest.h>

#include <cmath>
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

HashModel::HashModel(Next next) : next_(std::move(next)) {
  info_ = {.architecture = "hash",
           .name = "hash",
           .quantization = "F32",
           .vocab_size = kVocabSize,
           .width = kWidth,
           .context_tokens = kContext,
           .parameters = 1,
           .weight_bytes = 4,
           .kv_bytes_per_token = kKvBytesPerToken};
}

Status HashModel::AllocateKv(const KvLayout& layout) {
  EXPECT_TRUE(slots_.empty()) << "the KV cache is allocated once";
  layout_ = layout;
  slots_.assign(static_cast<size_t>(layout.num_blocks) * static_cast<size_t>(layout.block_tokens),
                -1);
  return {};
}

void HashModel::CheckBatch(const ForwardBatch& batch) const {
  std::set<int32_t> blocks, written;
  std::set<int32_t> last_rows;
  int32_t row = 0;
  for (const auto& sequence : batch.sequences) {
    EXPECT_EQ(sequence.first_row, row);
    EXPECT_GE(sequence.num_rows, 1);
    EXPECT_GE(static_cast<int64_t>(sequence.blocks.size()) * layout_.block_tokens,
              sequence.context_tokens);
    for (int32_t i = 0; i < sequence.num_rows; ++i) {
      const size_t at = static_cast<size_t>(row + i);
      EXPECT_EQ(batch.positions[at], sequence.context_tokens - sequence.num_rows + i);
      EXPECT_TRUE(batch.tokens[at] >= 0 && batch.tokens[at] < kVocabSize);
    }
    const int32_t first_written =
        (sequence.context_tokens - sequence.num_rows) / layout_.block_tokens;
    for (int32_t i = 0; i < static_cast<int32_t>(sequence.blocks.size()); ++i) {
      const int32_t block = sequence.blocks[static_cast<size_t>(i)];
      EXPECT_TRUE(block >= 0 && block < layout_.num_blocks);
      const bool shared = !blocks.insert(block).second;
      if (i >= first_written) {
        EXPECT_TRUE(written.insert(block).second && !shared)
            << "block " << block << " is written by one sequence and belongs to another";
      } else {
        EXPECT_FALSE(written.contains(block)) << "block " << block << " is read while written";
      }
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

Status HashModel::Forward(const ForwardBatch& batch, std::span<float> logits) {
  ++forwards_;
  if (on_forward) QUERN_TRY(on_forward(batch));
  CheckBatch(batch);
  EXPECT_EQ(logits.size(), batch.logit_rows.size() * kVocabSize);
  rows_.clear();
  for (const auto& sequence : batch.sequences) {
    for (int32_t row = sequence.first_row; row < sequence.first_row + sequence.num_rows; ++row) {
      const auto at = static_cast<size_t>(row);
      rows_.push_back({{sequence.blocks.begin(), sequence.blocks.end()}, batch.positions[at]});
      slots_[SlotOf(rows_.back(), batch.positions[at])] = batch.tokens[at];
    }
  }
  ReadLogits(batch.logit_rows, logits);
  return {};
}

void HashModel::ReadLogits(std::span<const int32_t> rows, std::span<float> logits) {
  ASSERT_EQ(logits.size(), rows.size() * kVocabSize);
  for (size_t i = 0; i < rows.size(); ++i) {
    WriteLogits(ContextOf(rows[i]), logits.subspan(i * kVocabSize, kVocabSize));
  }
}

void HashModel::ReadHidden(std::span<const int32_t> rows, std::span<float> hidden) {
  ASSERT_EQ(hidden.size(), rows.size() * kWidth);
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<TokenId> context = ContextOf(rows[i]);
    hidden[i * kWidth] = static_cast<float>(context.size() - 1);
    hidden[i * kWidth + 1] = static_cast<float>(context.back());
    hidden[i * kWidth + 2] = static_cast<float>(Hash(context) % 1000);
  }
}

size_t HashModel::SlotOf(const Row& row, int32_t position) const {
  const auto block =
      static_cast<size_t>(row.blocks[static_cast<size_t>(position / layout_.block_tokens)]);
  return block * static_cast<size_t>(layout_.block_tokens) +
         static_cast<size_t>(position % layout_.block_tokens);
}

std::vector<TokenId> HashModel::ContextOf(int32_t row) const {
  const Row& of = rows_[static_cast<size_t>(row)];
  std::vector<TokenId> context;
  for (int32_t i = 0; i <= of.position; ++i) context.push_back(slots_[SlotOf(of, i)]);
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
