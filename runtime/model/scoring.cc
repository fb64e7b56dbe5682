#include "runtime/model/scoring.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace quern {
namespace {

// Tokens a step: enough to use each weight many times, few enough that the logits of a large
// vocabulary fit.
constexpr size_t kStepTokens = 64;

// For a step from position `begin` on: the window's blocks in turn, over and over; none for tokens
// that the step does not see.
void WindowBlocksAt(int32_t begin, const ModelInfo& model, const KvLayout& layout,
                    std::vector<int32_t>& blocks) {
  if (layout.window_blocks == 0) return;
  blocks.resize(static_cast<size_t>(layout.num_blocks));
  const int32_t first = std::max(0, begin - model.window_tokens + 1) / layout.block_tokens;
  for (int32_t i = 0; i < layout.num_blocks; ++i) {
    blocks[static_cast<size_t>(i)] = i < first ? -1 : i % layout.window_blocks;
  }
}

}  // namespace

KvLayout LayoutFor(const ModelInfo& model, int64_t tokens) {
  KvLayout layout;
  layout.num_blocks =
      static_cast<int32_t>((tokens + layout.block_tokens - 1) / layout.block_tokens);
  if (model.window_layers > 0) {
    // A step and the window before its first token, where both begin and end in a block's middle.
    const int64_t seen = model.window_tokens - 1 + static_cast<int64_t>(kStepTokens);
    const int64_t blocks = (seen + 2 * layout.block_tokens - 2) / layout.block_tokens;
    if (blocks < layout.num_blocks) layout.window_blocks = static_cast<int32_t>(blocks);
  }
  return layout;
}

Status ScoreSequence(Model& model, const KvLayout& layout, std::span<const int32_t> tokens,
                     const std::vector<bool>& wanted, const LogitsSink& sink) {
  const auto vocabulary = static_cast<size_t>(model.info().vocab_size);
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || static_cast<size_t>(tokens[i]) >= vocabulary) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "token {} at position {} is outside the vocabulary of {}", tokens[i], i,
                       vocabulary);
    }
  }
  if (static_cast<int64_t>(tokens.size()) >
      static_cast<int64_t>(layout.num_blocks) * layout.block_tokens) {
    return MakeError(ErrorCode::kInvalidArgument, "{} tokens do not fit a KV cache of {}",
                     tokens.size(), static_cast<int64_t>(layout.num_blocks) * layout.block_tokens);
  }
  std::vector<int32_t> blocks(static_cast<size_t>(layout.num_blocks));
  std::iota(blocks.begin(), blocks.end(), 0);
  std::vector<int32_t> window_blocks;
  std::vector<float> logits;
  for (size_t begin = 0; begin < tokens.size(); begin += kStepTokens) {
    const size_t rows = std::min(kStepTokens, tokens.size() - begin);
    std::vector<int32_t> positions(rows);
    std::iota(positions.begin(), positions.end(), static_cast<int32_t>(begin));
    std::vector<int32_t> logit_rows;
    for (size_t row = 0; row < rows; ++row) {
      if (wanted.empty() || wanted[begin + row]) logit_rows.push_back(static_cast<int32_t>(row));
    }
    WindowBlocksAt(static_cast<int32_t>(begin), model.info(), layout, window_blocks);
    const ForwardBatch::Sequence sequence{
        0, static_cast<int32_t>(rows), static_cast<int32_t>(begin + rows), blocks, window_blocks};
    const ForwardBatch batch{tokens.subspan(begin, rows), positions, std::span(&sequence, 1),
                             logit_rows};
    logits.resize(std::max(logits.size(), logit_rows.size() * vocabulary));
    QUERN_TRY(model.Forward(batch, std::span(logits).first(logit_rows.size() * vocabulary)));
    for (size_t i = 0; i < logit_rows.size(); ++i) {
      sink(positions[static_cast<size_t>(logit_rows[i])],
           std::span<const float>(logits).subspan(i * vocabulary, vocabulary));
    }
  }
  return {};
}

double LogSumExp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum);
}

std::vector<std::pair<int32_t, float>> TopK(std::span<const float> logits, size_t k) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  k = std::min(k, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k), order.end(),
                    [&](int32_t a, int32_t b) {
                      const float x = logits[static_cast<size_t>(a)];
                      const float y = logits[static_cast<size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  std::vector<std::pair<int32_t, float>> top;
  for (size_t i = 0; i < k; ++i) top.emplace_back(order[i], logits[static_cast<size_t>(order[i])]);
  return top;
}

}  // namespace quern
