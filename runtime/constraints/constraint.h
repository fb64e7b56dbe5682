#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/base/result.h"

struct LlgMatcher;  // of llguidance.h

namespace quern {

// One bit per token, the lowest bit of a word first; set: allowed.
constexpr size_t MaskWords(size_t vocab_size) { return (vocab_size + 31) / 32; }

inline bool MaskAllows(std::span<const uint32_t> mask, size_t token) {
  return ((mask[token / 32] >> (token % 32)) & 1) != 0;
}

// Where one answer stands in its constraint. Made by ConstraintCompiler::Compile, which it may
// outlive. One thread at a time; different ones are independent, clones too.
//
// Why that holds, as read in the sources of llguidance 1.9.1: what matchers of one tokenizer or one
// grammar share (the trie of tokens, its slices, the grammar) is immutable behind an Arc, but for
// counters of time, which are atomics. What changes is the parser's state, by value, and the lexer
// with its table of states, which grows as masks are computed and lies behind an Arc<Mutex>:
// llg_clone_matcher makes a deep clone, with a lexer and mutex of its own (Matcher::clone, which it
// does not use, shares them). So no clone waits for another's 14 ms of work, and none sees states
// of another tenant's grammar. To look at again when the version changes.
class Constraint {
 public:
  using Tokens = std::vector<int32_t>;

  // Takes over `matcher`. `ends`: the end-of-generation tokens.
  Constraint(LlgMatcher* matcher, size_t vocab_size, std::shared_ptr<const Tokens> ends);
  ~Constraint();
  Constraint(const Constraint&) = delete;
  Constraint& operator=(const Constraint&) = delete;

  // Which tokens may come next into `mask` [MaskWords(vocab_size)]: at least one. When the answer
  // could end here the end-of-generation tokens are among them, and alone when it must end here.
  // Takes tens of microseconds in most states, and never more than some ten milliseconds: kept by
  // limits of the work (ConstraintLimits). kResourceExhausted where they are met, and where nothing
  // can follow: a format may lead to where it has no way out.
  Status ComputeMask(std::span<uint32_t> mask);
  // Goes on by a token that the mask allows; an end-of-generation token ends it.
  // kInvalidArgument for any other.
  Status Commit(int32_t token);
  // Whether what was committed is a whole answer.
  bool IsAccepting();
  // Whether nothing but end-of-generation tokens may follow; also once one of them was committed.
  bool IsFinished() const;
  // A copy that goes its own way from here.
  std::unique_ptr<Constraint> Clone() const;

  size_t vocab_size() const { return vocab_size_; }

 private:
  struct Free {
    void operator()(LlgMatcher* matcher) const;
  };
  std::unique_ptr<LlgMatcher, Free> matcher_;
  const size_t vocab_size_;
  const std::shared_ptr<const Tokens> ends_;
  bool ended_ = false;  // an end-of-generation token was committed
};

}  // namespace quern
