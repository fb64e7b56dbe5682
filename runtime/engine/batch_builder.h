#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/backend/backend.h"
#include "runtime/engine/active_request.h"
#include "runtime/scheduler/scheduler.h"

namespace quern {

// Turns a step that was scheduled into the batch that a backend sees: the one place where scheduler
// and model meet. Keeps its arrays from step to step. Not thread-safe.
class BatchBuilder {
 public:
  BatchBuilder(int32_t max_tokens, int32_t max_sequences);

  // `requests[i]` is the owner of `step.sequences[i]`, its blocks grown and its tokens not
  // committed yet. `model_draws`: tokens that need no more than a draw are the model's to pick, and
  // no logits are asked for them. The view is valid until the next call, and as long as no block
  // table changes.
  ForwardBatch Build(const SchedulerOutput& step, std::span<ActiveRequest* const> requests,
                     bool model_draws);

  // Of the last one that was built: the first row of its sequence `i`.
  int32_t first_row(size_t i) const { return sequences_[i].first_row; }
  // The rows whose tokens the model picks, and how.
  std::span<const int32_t> drawn_rows() const { return drawn_rows_; }
  std::span<const TokenDraw> draws() const { return draws_; }
  // Whether its sequence `i`, which samples, is among them, and which of them, or of the batch's
  // logit rows, it is.
  bool drawn(size_t i) const { return samples_[i].drawn; }
  size_t sample_index(size_t i) const { return samples_[i].index; }

 private:
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  std::vector<ForwardBatch::Sequence> sequences_;
  struct Sample {
    bool drawn = false;
    size_t index = 0;
  };

  std::vector<int32_t> logit_rows_, logit_ranks_;
  std::vector<int32_t> drawn_rows_;
  std::vector<TokenDraw> draws_;
  std::vector<Sample> samples_;  // of each sequence
};

}  // namespace quern
