#include "runtime/engine/prompt_reader.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace quern {
namespace {

// Rows read at once: enough to use each weight of the head many times, and 16 MiB of logits with a
// vocabulary of 262,144.
constexpr int32_t kRowsAtOnce = 16;
constexpr int64_t kMostCost = 16;

}  // namespace

int32_t PromptReader::CostOfRow(const ModelInfo& model) {
  const int64_t head = int64_t{model.vocab_size} * model.width;
  const int64_t rest = std::max<int64_t>(1, model.parameters - head);
  return static_cast<int32_t>(std::min(kMostCost, 1 + (head + rest - 1) / rest));
}

template <typename Reader>
void PromptReader::InParts(const Rows& rows, const Reader& read) {
  for (int32_t begin = rows.begin; begin < rows.end; begin += kRowsAtOnce) {
    numbers_.clear();
    for (int32_t at = begin; at < std::min(rows.end, begin + kRowsAtOnce); ++at) {
      numbers_.push_back(rows.first_row + at - rows.begin);
    }
    read(std::span<const int32_t>(numbers_), begin);
  }
}

Result<bool> PromptReader::Read(Model& model, const ScheduledSequence& scheduled, int32_t first_row,
                                ActiveRequest& request, GenerationDelta& delta) {
  const Sequence& sequence = *scheduled.sequence;
  const int32_t first = sequence.cached_tokens - scheduled.num_tokens;
  const int32_t begin = std::max(first, request.prompt_read);
  const int32_t end = std::min(sequence.cached_tokens, sequence.prompt_tokens);
  if (begin >= end || (!request.prompt_logprobs && !request.pooling)) return false;
  const Rows rows{first_row + begin - first, begin, end};
  if (request.prompt_logprobs) {
    if (begin == 0) {
      delta.prompt_logprobs.push_back({.token = {request.tokens.front(), 0}, .predicted = false});
    }
    // The last row is of the first token that is generated.
    Rows predicting = rows;
    predicting.end = std::min(end, sequence.prompt_tokens - 1);
    QUERN_TRY(ReadLogprobs(model, predicting, request, delta.prompt_logprobs));
  }
  if (request.pooling) {
    QUERN_TRY(Pool(model, rows, request));
    if (end == sequence.prompt_tokens) delta.embedding = std::exchange(request.pooled, {});
  }
  request.prompt_read = end;
  return true;
}

Status PromptReader::ReadLogprobs(Model& model, const Rows& rows, const ActiveRequest& request,
                                  std::vector<GeneratedLogprobs>& out) {
  const auto vocabulary = static_cast<size_t>(model.info().vocab_size);
  Status status;
  InParts(rows, [&](std::span<const int32_t> numbers, int32_t begin) {
    if (!status.ok()) return;
    values_.resize(std::max(values_.size(), numbers.size() * vocabulary));
    status = model.ReadLogits(numbers, std::span(values_).first(numbers.size() * vocabulary));
    for (size_t i = 0; i < numbers.size() && status.ok(); ++i) {
      const auto logits = std::span<const float>(values_).subspan(i * vocabulary, vocabulary);
      status = logprobs_.Measure(logits);
      if (!status.ok()) return;
      const TokenId next = request.tokens[static_cast<size_t>(begin) + i + 1];
      out.push_back({.token = {next, logprobs_.Logprob(logits[static_cast<size_t>(next)])},
                     .top = logprobs_.Top(logits, static_cast<size_t>(*request.prompt_logprobs))});
    }
  });
  return status;
}

Status PromptReader::Pool(Model& model, const Rows& rows, ActiveRequest& request) {
  const auto width = static_cast<size_t>(model.info().width);
  const int32_t tokens = request.prompt_tokens();
  const bool mean = request.pooling == Pooling::kMean;
  Rows wanted = rows;
  if (!mean) {
    if (rows.end < tokens) return {};
    wanted = {rows.first_row + tokens - 1 - rows.begin, tokens - 1, tokens};
  }
  request.pooled.resize(width);
  const float share = mean ? 1.0f / static_cast<float>(tokens) : 1.0f;
  Status status;
  InParts(wanted, [&](std::span<const int32_t> numbers, int32_t) {
    if (!status.ok()) return;
    values_.resize(std::max(values_.size(), numbers.size() * width));
    status = model.ReadHidden(numbers, std::span(values_).first(numbers.size() * width));
    for (size_t i = 0; i < numbers.size() * width; ++i) {
      request.pooled[i % width] += share * values_[i];
    }
  });
  return status;
}

}  // namespace quern
