#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/backend/forward_batch.h"
#include "runtime/engine/active_request.h"
#include "runtime/scheduler/scheduler.h"

namespace quern {

// Turns a step that was scheduled into the batch that a backend sees: the one place where scheduler
// and model meet. Keeps its arrays from step to step. Not thread-safe.
class BatchBuilder {
 public:
  BatchBuilder(int32_t max_tokens, int32_t max_sequences);

  // `requests[i]` is the owner of `step.sequences[i]`, its blocks grown and its tokens not
  // committed yet. The view is valid until the next call, and as long as no block table changes.
  ForwardBatch Build(const SchedulerOutput& step, std::span<ActiveRequest* const> requests);

  // Of the last one that was built: the first row of its sequence `i`.
  int32_t first_row(size_t i) const { return sequences_[i].first_row; }

 private:
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  std::vector<ForwardBatch::Sequence> sequences_;
  std::vector<int32_t> logit_rows_;
};

}  // namespace quern
