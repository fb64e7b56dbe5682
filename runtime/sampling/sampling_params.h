#pragma once

#include <cstdint>
#include <optional>

#include "runtime/base/result.h"

namespace quern {

// How the next token is picked from the logits. Names and meanings are OpenAI's and vLLM's.
struct SamplingParams {
  float temperature = 1.0f;      // [0, 2]; 0 is greedy
  float top_p = 1.0f;            // (0, 1]
  int32_t top_k = 0;             // 0: all
  float min_p = 0.0f;            // [0, 1): drop tokens less likely than min_p × the likeliest
  std::optional<uint64_t> seed;  // same seed, same text, whatever else is in the batch
};

// kInvalidArgument names the field that is out of its range (or not a number), and the range.
Status ValidateSamplingParams(const SamplingParams& params);

}  // namespace quern
