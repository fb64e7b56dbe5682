#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/tokenizer/tokenizer.h"

namespace quern::server {

// A prompt's text, as an answer that is to echo it begins.
struct Echo {
  std::string text;
  int32_t chars = 0;  // code points of `text`
  // Characters of `text` before each of the prompt's tokens, where log-probabilities are wanted;
  // else empty. Never falling, and 0 for a token that stands before the text (BOS).
  std::vector<int32_t> offsets;
};

// Of the prompt's `tokens`, which `text` was encoded to, with BOS if `text` is given; without it
// the tokens came alone, and the text is theirs, with control tokens written out.
Echo MakeEcho(std::span<const TokenId> tokens, std::optional<std::string> text, bool with_offsets,
              const Tokenizer& tokenizer);

}  // namespace quern::server
