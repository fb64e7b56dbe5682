#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/engine/active_request.h"
#include "runtime/model/model.h"
#include "runtime/sampling/logprobs.h"
#include "runtime/scheduler/scheduler.h"

namespace quern {

// Reads out of a step what a request wants to know of its prompt: the log-probabilities of its
// tokens, and one vector for all of it. A few rows at a time, so that what is held of a large
// vocabulary does not grow with the step. Keeps its buffers; not thread-safe.
class PromptReader {
 public:
  // How many times as much a token whose logits are wanted costs as another one: at least 1.
  static int32_t CostOfRow(const ModelInfo& model);

  // `scheduled` is part of the step that `model` ran last, from row `first_row` on, and is
  // committed. Adds to `delta` what these rows say; a row that was read before, and ran again after
  // a preemption, is passed over. Returns whether there was anything to read. kInternal when a
  // logit is NaN or infinite.
  Result<bool> Read(Model& model, const ScheduledSequence& scheduled, int32_t first_row,
                    ActiveRequest& request, GenerationDelta& delta);

 private:
  struct Rows {  // of the step: first_row is of position `begin`
    int32_t first_row, begin, end;
  };
  Status ReadLogprobs(Model& model, const Rows& rows, const ActiveRequest& request,
                      std::vector<GeneratedLogprobs>& out);
  Status Pool(Model& model, const Rows& rows, ActiveRequest& request);
  // Calls `read` with the rows' numbers, some at a time, and the position of the first of them.
  template <typename Reader>
  void InParts(const Rows& rows, const Reader& read);

  LogprobReader logprobs_;
  std::vector<int32_t> numbers_;
  std::vector<float> values_;
};

}  // namespace quern
