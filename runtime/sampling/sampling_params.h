#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/base/result.h"

namespace quern {

struct TokenBias {
  int32_t token = 0;
  float bias = 0;  // [-100, 100]; added to the token's logit
};

inline constexpr size_t kMaxLogitBiases = 1024;  // OpenAI takes 300

// How the next token is picked from the logits. Names and meanings are OpenAI's and vLLM's.
struct SamplingParams {
  float temperature = 1.0f;      // [0, 2]; 0 is greedy
  float top_p = 1.0f;            // (0, 1]
  int32_t top_k = 0;             // 0: all
  float min_p = 0.0f;            // [0, 1): drop tokens less likely than min_p × the likeliest
  std::optional<uint64_t> seed;  // same seed, same text, whatever else is in the batch
  // (0, 1]: of the tokens whose surprise is nearest to the expected one, the fewest with this mass.
  float typical_p = 1.0f;
  float frequency_penalty = 0.0f;     // [-2, 2]: off a logit for each time its token was generated
  float presence_penalty = 0.0f;      // [-2, 2]: off a logit once its token was generated
  float repetition_penalty = 1.0f;    // (0, 10]: divides (if negative: multiplies) a logit once its
                                      // token was in the prompt or generated
  std::vector<TokenBias> logit_bias;  // at most kMaxLogitBiases; ids of the vocabulary
};

// kInvalidArgument names the field that is out of its range (or not a number), and the range.
Status ValidateSamplingParams(const SamplingParams& params);

}  // namespace quern
