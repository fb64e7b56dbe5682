#pragma once

#include <string>
#include <vector>

#include "runtime/engine/stop_matcher.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {

// The text of one sequence as its tokens come: whole UTF-8 characters, up to the first stop string.
// Not thread-safe.
class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : decoder_(tokenizer), matcher_(stops) {}

  // The text that `token` makes certain. Not after stopped().
  std::string Push(TokenId token) { return matcher_.Push(decoder_.Push(token)); }
  // The generation is over: what was held back of characters and of stop strings.
  std::string Finish();
  // A stop string is complete; nothing more is to be given out.
  bool stopped() const { return matcher_.found(); }

 private:
  IncrementalDecoder decoder_;
  StopMatcher matcher_;
};

}  // namespace quern
