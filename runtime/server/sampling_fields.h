#pragma once

#include <cstdint>
#include <optional>

#include "runtime/server/fields.h"
#include "runtime/server/request.h"

namespace quern::server {

// The members that say how tokens are picked and where an answer ends (all but max_tokens, whose
// name depends on the endpoint). Throw ApiException.
void ParseSampling(Fields& fields, GenerationParams& params);
// How many alternatives are wanted beside each token's log-probability; absent: no
// log-probabilities.
std::optional<int32_t> ParseCompletionLogprobs(Fields& fields);  // "logprobs": a number
std::optional<int32_t> ParseChatLogprobs(Fields& fields);        // "logprobs": true, "top_logprobs"

}  // namespace quern::server
