#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "runtime/engine/engine.h"

namespace quern {

// Holds back the log-probabilities of tokens whose text is held back, so that they are given out
// with their text or after it, and not at all where a stop string cuts all of it off. At most as
// many as text is held back for: a stop string's length. Not thread-safe.
class LogprobQueue {
 public:
  // `begins_at`: characters of text before the token's own, GeneratedLogprobs::text_offset.
  void Push(GeneratedLogprobs logprobs) { held_.push_back(std::move(logprobs)); }

  // Those of tokens that begin before character `given` of the text.
  std::vector<GeneratedLogprobs> Take(int32_t given) {
    const auto end = std::find_if(held_.begin(), held_.end(), [given](const auto& logprobs) {
      return logprobs.text_offset >= given;
    });
    std::vector<GeneratedLogprobs> out(std::make_move_iterator(held_.begin()),
                                       std::make_move_iterator(end));
    held_.erase(held_.begin(), end);
    return out;
  }
  std::vector<GeneratedLogprobs> TakeAll() { return Take(INT32_MAX); }

 private:
  std::vector<GeneratedLogprobs> held_;
};

}  // namespace quern
