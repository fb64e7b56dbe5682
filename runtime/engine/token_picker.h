#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/engine/active_request.h"
#include "runtime/engine/mask_worker.h"
#include "runtime/sampling/logit_adjuster.h"
#include "runtime/sampling/logprobs.h"
#include "runtime/sampling/sampler.h"

namespace quern {

struct PickedToken {
  TokenId token = 0;
  float logprob = 0;              // this and `top` only if the request asked for them
  std::vector<TokenLogprob> top;  // the likeliest first
};

// From a row of logits to the next token of a request: penalties and biases, min_tokens, the mask
// of its constraint, the draw, and log-probabilities of the model's own distribution. A request
// that asks for none of this pays for the draw alone. Keeps its buffers; not thread-safe.
class TokenPicker {
 public:
  explicit TokenPicker(const Tokenizer& tokenizer);

  // `logits` [vocab_size] is changed. `masks`: where the request has a constraint, its mask is
  // number `row`, which is ready; the token is committed to the constraint. kInternal when a logit
  // is NaN or infinite; what Constraint::ComputeMask and Commit say.
  Result<PickedToken> Pick(ActiveRequest& request, std::span<float> logits, const MaskWorker& masks,
                           size_t row);

 private:
  // Lets no end-of-generation token be picked.
  void MaskEnds(std::span<float> logits);

  std::vector<TokenId> ends_;  // the tokens that end a generation
  Sampler sampler_;
  LogprobReader logprobs_;
  std::vector<LogitAdjuster::Original> originals_;
};

}  // namespace quern
