#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "runtime/engine/engine.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern::server {

// JSON string of valid or invalid UTF-8; what is invalid becomes U+FFFD.
std::string QuotedJson(std::string_view text);

// Bytes of `text` between the quotes of QuotedJson(text): exact where it is valid UTF-8, else at
// least so many.
int64_t QuotedBytes(std::string_view text);

// The most that one token of a vocabulary adds to an answer.
struct TokenSizes {
  int64_t text = 512;      // to the text of a choice
  int64_t logprob = 4096;  // as an entry of its log-probabilities, of a chat or a completion
};
// Looks at every token once.
TokenSizes TokenSizesOf(const Tokenizer& tokenizer);

// [{token, logprob, bytes, top_logprobs}], OpenAI's for chats and responses. `token` is text,
// `bytes` is exact where a token is a part of a character.
std::string TokenLogprobs(std::span<const GeneratedLogprobs> logprobs, const Tokenizer& tokenizer);

// OpenAI's "logprobs" of a chat's choice: {"content": <TokenLogprobs>, "refusal": null}.
std::string ChatLogprobs(std::span<const GeneratedLogprobs> logprobs, const Tokenizer& tokenizer);

// OpenAI's "logprobs" of a completion's choice: {tokens, token_logprobs, top_logprobs,
// text_offset}. The maps of top_logprobs also hold the token that was picked. A token that is not
// valid UTF-8 is written "bytes:\xe2\x82", as OpenAI does: two such tokens must not become one
// name.
std::string CompletionLogprobs(std::span<const GeneratedLogprobs> logprobs,
                               const Tokenizer& tokenizer);

}  // namespace quern::server
