#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace quern {

// Finds stop strings in a text that arrives in pieces, wherever the pieces are cut, and holds back
// what could be the beginning of one. The first stop string to be complete ends the text; of two
// complete at the same byte, the longer. Knuth-Morris-Pratt per stop string: each byte is looked at
// once. Not thread-safe.
class StopMatcher {
 public:
  // No stop string is empty. With none at all, text passes straight through.
  explicit StopMatcher(const std::vector<std::string>& stops);

  // Appends `text` and returns what can be given out: everything before a stop string that is now
  // complete, else everything but the longest end that is the beginning of a stop string. Not after
  // found(). Unless `may_stop`, a stop string that is completed by this text is text like any other
  // (one that is only begun by it is not).
  std::string Push(std::string_view text, bool may_stop = true);
  // The text is over: what was held back.
  std::string Flush();

  bool found() const { return found_; }

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t> border;  // border[i]: length of the longest proper border of text[0, i]
    size_t matched = 0;          // bytes of `text` that the input so far ends with
  };

  std::vector<Pattern> patterns_;
  std::string held_;
  bool found_ = false;
};

}  // namespace quern
