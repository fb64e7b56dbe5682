#include "runtime/engine/batch_builder.h"

#include <cassert>
#include <cstddef>

#include "runtime/sampling/logit_adjuster.h"
#include "runtime/sampling/sampler.h"

namespace quern {
namespace {

// Nothing is done to its logits, nor read out of them.
bool NeedsOnlyADraw(const ActiveRequest& request) {
  const bool may_end = request.ignore_eos || request.completion_tokens() >= request.min_tokens;
  return may_end && !request.top_logprobs && request.constraint == nullptr && !request.adjuster &&
         !LogitAdjuster::Needed(request.sampling) && request.sampling.typical_p >= 1;
}

TokenDraw DrawOf(const ActiveRequest& request) {
  const SamplingParams& sampling = request.sampling;
  return {sampling.temperature, sampling.top_p, sampling.min_p,
          sampling.top_k,       request.seed,   request.tokens.size()};
}

// How many of its greatest logits say what the sampler picks; 0: it looks at all.
int32_t LogitRankOf(const ActiveRequest& request) {
  if (!NeedsOnlyADraw(request)) return 0;
  const SamplingParams& sampling = request.sampling;
  return sampling.temperature < Sampler::kGreedyBelow ? 1 : sampling.top_k;
}

}  // namespace

BatchBuilder::BatchBuilder(int32_t max_tokens, int32_t max_sequences) {
  tokens_.reserve(static_cast<size_t>(max_tokens));
  positions_.reserve(static_cast<size_t>(max_tokens));
  sequences_.reserve(static_cast<size_t>(max_sequences));
  logit_rows_.reserve(static_cast<size_t>(max_sequences));
  logit_ranks_.reserve(static_cast<size_t>(max_sequences));
}

ForwardBatch BatchBuilder::Build(const SchedulerOutput& step,
                                 std::span<ActiveRequest* const> requests, bool model_draws) {
  assert(requests.size() == step.sequences.size());
  tokens_.clear();
  positions_.clear();
  sequences_.clear();
  logit_rows_.clear();
  logit_ranks_.clear();
  drawn_rows_.clear();
  draws_.clear();
  samples_.assign(requests.size(), {});
  for (size_t i = 0; i < requests.size(); ++i) {
    const ScheduledSequence& scheduled = step.sequences[i];
    const Sequence& sequence = *scheduled.sequence;
    const auto first_row = static_cast<int32_t>(tokens_.size());
    const int32_t context = sequence.cached_tokens + scheduled.num_tokens;
    for (int32_t position = sequence.cached_tokens; position < context; ++position) {
      tokens_.push_back(requests[i]->tokens[static_cast<size_t>(position)]);
      positions_.push_back(position);
    }
    sequences_.push_back({.first_row = first_row,
                          .num_rows = scheduled.num_tokens,
                          .context_tokens = context,
                          .blocks = sequence.blocks.blocks(),
                          .window_blocks = sequence.blocks.window_blocks()});
    if (!scheduled.samples) continue;
    const int32_t row = first_row + scheduled.num_tokens - 1;
    const bool drawn = model_draws && NeedsOnlyADraw(*requests[i]);
    samples_[i] = {drawn, drawn ? drawn_rows_.size() : logit_rows_.size()};
    (drawn ? drawn_rows_ : logit_rows_).push_back(row);
    if (drawn) {
      draws_.push_back(DrawOf(*requests[i]));
    } else {
      logit_ranks_.push_back(LogitRankOf(*requests[i]));
    }
  }
  ForwardBatch batch{.tokens = tokens_,
                     .positions = positions_,
                     .sequences = sequences_,
                     .logit_rows = logit_rows_,
                     .logit_ranks = logit_ranks_};
  if (!step.sequences.empty()) {
    batch.first_layer = step.sequences.back().first_layer;
    batch.end_layer = step.sequences.back().end_layer;
  }
  return batch;
}

}  // namespace quern
