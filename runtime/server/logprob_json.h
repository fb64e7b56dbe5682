#pragma once

#include <span>
#include <string>
#include <string_view>

#include "runtime/engine/engine.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern::server {

// JSON string of valid or invalid UTF-8; what is invalid becomes U+FFFD.
std::string QuotedJson(std::string_view text);

// OpenAI's "logprobs" of a chat's choice: {"content": [{token, logprob, bytes, top_logprobs}],
// "refusal": null}. `token` is text, `bytes` is exact where a token is a part of a character.
std::string ChatLogprobs(std::span<const GeneratedLogprobs> logprobs, const Tokenizer& tokenizer);

// OpenAI's "logprobs" of a completion's choice: {tokens, token_logprobs, top_logprobs,
// text_offset}. The maps of top_logprobs also hold the token that was picked. A token that is not
// valid UTF-8 is written "bytes:\xe2\x82", as OpenAI does: two such tokens must not become one
// name.
std::string CompletionLogprobs(std::span<const GeneratedLogprobs> logprobs,
                               const Tokenizer& tokenizer);

}  // namespace quern::server
