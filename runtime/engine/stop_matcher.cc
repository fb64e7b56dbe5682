#include "runtime/engine/stop_matcher.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace quern {

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    assert(!stop.empty());
    Pattern pattern{.text = stop, .border = std::vector<size_t>(stop.size(), 0)};
    for (size_t i = 1, length = 0; i < stop.size(); ++i) {
      while (length > 0 && stop[i] != stop[length]) length = pattern.border[length - 1];
      if (stop[i] == stop[length]) ++length;
      pattern.border[i] = length;
    }
    patterns_.push_back(std::move(pattern));
  }
}

std::string StopMatcher::Push(std::string_view text, bool may_stop) {
  assert(!found_);
  if (patterns_.empty()) return std::string(text);
  size_t partial = 0;
  for (const char byte : text) {
    held_.push_back(byte);
    size_t complete = 0;
    partial = 0;
    for (Pattern& pattern : patterns_) {
      while (pattern.matched > 0 && pattern.text[pattern.matched] != byte) {
        pattern.matched = pattern.border[pattern.matched - 1];
      }
      if (pattern.text[pattern.matched] == byte) ++pattern.matched;
      if (pattern.matched == pattern.text.size()) {
        complete = std::max(complete, pattern.matched);
        pattern.matched = pattern.border.back();  // should it not count
      }
      partial = std::max(partial, pattern.matched);
    }
    if (complete > 0 && may_stop) {
      found_ = true;
      held_.resize(held_.size() - complete);
      return std::exchange(held_, {});
    }
  }
  if (text.empty()) return {};
  std::string out = held_.substr(0, held_.size() - partial);
  held_.erase(0, out.size());
  return out;
}

std::string StopMatcher::Flush() { return std::exchange(held_, {}); }

}  // namespace quern
