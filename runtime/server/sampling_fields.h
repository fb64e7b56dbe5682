#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "runtime/server/fields.h"
#include "runtime/server/request.h"

namespace quern::server {

// The members that every request for text has (all throw ApiException): the model, whether to
// stream, the place in the queue, how tokens are picked and where an answer ends; those that are
// refused and those that change nothing. Not max_tokens, whose name depends on the endpoint.
void ParseCommon(Fields& fields, GenerationParams& params);
// At least `least`; absent: none was given.
std::optional<int32_t> ParseMaxTokens(Fields& fields, const char* name, int64_t least = 1);
// Some of the above, for requests that are for no text.
std::string ParseModel(Fields& fields);
int32_t ParsePriority(Fields& fields);
std::string ParseCacheSalt(Fields& fields);  // empty: none
// `metadata`, which changes nothing: an object of a few short strings, or null where there is none.
const nlohmann::json* CheckMetadata(Fields& fields);
// `stream_options` was sent: only a stream has them.
void RefuseUnlessStreamed(const GenerationParams& params);
// How many alternatives are wanted beside each token's log-probability; absent: no
// log-probabilities.
std::optional<int32_t> ParseCompletionLogprobs(Fields& fields);  // "logprobs": a number
std::optional<int32_t> ParseChatLogprobs(Fields& fields);        // "logprobs": true, "top_logprobs"

}  // namespace quern::server
