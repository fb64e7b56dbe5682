#include "runtime/engine/batch_builder.h"

#include <cassert>
#include <cstddef>

namespace quern {

BatchBuilder::BatchBuilder(int32_t max_tokens, int32_t max_sequences) {
  tokens_.reserve(static_cast<size_t>(max_tokens));
  positions_.reserve(static_cast<size_t>(max_tokens));
  sequences_.reserve(static_cast<size_t>(max_sequences));
  logit_rows_.reserve(static_cast<size_t>(max_sequences));
}

ForwardBatch BatchBuilder::Build(const SchedulerOutput& step,
                                 std::span<ActiveRequest* const> requests) {
  assert(requests.size() == step.sequences.size());
  tokens_.clear();
  positions_.clear();
  sequences_.clear();
  logit_rows_.clear();
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
    if (scheduled.samples) logit_rows_.push_back(first_row + scheduled.num_tokens - 1);
  }
  ForwardBatch batch{.tokens = tokens_,
                     .positions = positions_,
                     .sequences = sequences_,
                     .logit_rows = logit_rows_};
  if (!step.sequences.empty()) {
    batch.first_layer = step.sequences.back().first_layer;
    batch.end_layer = step.sequences.back().end_layer;
  }
  return batch;
}

}  // namespace quern
