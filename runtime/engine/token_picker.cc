#include "runtime/engine/token_picker.h"

#include <cmath>
#include <utility>

namespace quern {

TokenPicker::TokenPicker(const Tokenizer& tokenizer) {
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.IsEndOfGeneration(id)) ends_.push_back(id);
  }
}

Result<PickedToken> TokenPicker::Pick(ActiveRequest& request, std::span<float> logits,
                                      const MaskWorker& masks, size_t row) {
  PickedToken picked;
  if (request.top_logprobs) {
    QUERN_TRY(logprobs_.Measure(logits));
    picked.top = logprobs_.Top(logits, static_cast<size_t>(*request.top_logprobs));
  }
  originals_.clear();
  if (!request.adjuster && LogitAdjuster::Needed(request.sampling)) {
    // None is generated yet. Once for each request: some milliseconds for 100,000 tokens of prompt.
    request.adjuster.emplace(request.sampling, request.tokens);
  }
  if (request.adjuster) request.adjuster->Apply(logits, originals_);
  Constraint* constraint = request.constraint.get();
  if (!request.ignore_eos && request.completion_tokens() < request.min_tokens) {
    // An answer that its format has brought to its end cannot go on for the sake of min_tokens.
    const bool must_end = constraint != nullptr && masks.AllowsOnly(row, ends_);
    if (!must_end) MaskEnds(logits);
  }
  // Last, so that no bias brings back what the format forbids.
  if (constraint != nullptr) QUERN_TRY(masks.Apply(row, logits));
  QUERN_ASSIGN(picked.token,
               sampler_.Sample(logits, request.sampling, request.seed, request.tokens.size()));
  if (constraint != nullptr) QUERN_TRY(constraint->Commit(picked.token));
  if (request.top_logprobs) {
    // The first is what stood there before all others.
    float logit = logits[static_cast<size_t>(picked.token)];
    for (const auto& original : originals_) {
      if (original.token != picked.token) continue;
      logit = original.logit;
      break;
    }
    picked.logprob = logprobs_.Logprob(logit);
  }
  if (request.adjuster) request.adjuster->Count(picked.token);
  return picked;
}

void TokenPicker::MaskEnds(std::span<float> logits) {
  for (const TokenId id : ends_) {
    float& logit = logits[static_cast<size_t>(id)];
    if (!std::isfinite(logit)) continue;
    originals_.push_back({id, logit});
    logit = kForbiddenLogit;
  }
}

}  // namespace quern
