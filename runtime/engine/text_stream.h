#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/engine/stop_matcher.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {

// The text of one sequence as its tokens come: whole UTF-8 characters, up to the first stop string
// that the tokens after the first `min_tokens` complete. Not thread-safe.
class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, const std::vector<std::string>& stops,
             int32_t min_tokens = 0)
      : decoder_(tokenizer), matcher_(stops), unstoppable_(min_tokens) {}

  // The text that `token` makes certain. Not after stopped().
  std::string Push(TokenId token);
  // The generation is over: what was held back of characters and of stop strings.
  std::string Finish();
  // A stop string is complete; nothing more is to be given out.
  bool stopped() const { return matcher_.found(); }

  // Characters (code points) so far: of all tokens, and of them given out.
  int32_t decoded_chars() const { return decoded_chars_; }
  int32_t given_chars() const { return given_chars_; }

 private:
  IncrementalDecoder decoder_;
  StopMatcher matcher_;
  int32_t unstoppable_;  // tokens to come that no stop string ends
  int32_t decoded_chars_ = 0;
  int32_t given_chars_ = 0;
};

}  // namespace quern
