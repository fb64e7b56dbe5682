#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/bench/plan.h"

namespace quern::bench {

// How the server at hand makes tokens of words.
struct WordTokens {
  std::vector<uint16_t> words;  // that prompts are made of: numbers in the list of words
  double tokens_per_word = 1;
  // Of a prompt of one word: with what the server puts before it (BOS, the chat template).
  int32_t first_word_tokens = 1;
  bool exact = false;  // a prompt has exactly the tokens that were asked for
};

// Prompts of about one token a word, for a server that cannot be asked.
WordTokens UnknownWordTokens();

// Tokens of a prompt with this text.
using TokenCounter = std::function<Result<int32_t>(const std::string& text)>;

// Finds the words that are one token each on this server, by counting a few hundred words, halved
// where they are more: prompts of these are as long as wanted. Where the vocabulary has too few of
// them, all words are taken, and their mean. Errors: those of `count`, and kUnsupported where its
// counts make no sense.
Result<WordTokens> LearnWords(const TokenCounter& count);

struct PromptOptions {
  uint64_t seed = 1;
  // So many tokens at the beginning are the same in all prompts, for measuring prefix caches; of a
  // chat, with those that its template puts behind a message, which are at the end.
  int32_t shared_prefix = 0;
};

// Texts of random words with a wanted number of tokens. Two prompts have nothing in common but
// their first word and what was asked for (shared_prefix, blocks of a trace), so that a prefix
// cache finds nothing that a real load would not bring. Immutable: thread-safe.
class PromptMaker {
 public:
  PromptMaker(WordTokens words, const PromptOptions& options)
      : words_(std::move(words)), options_(options) {}

  // The same request and seed give the same text. Not shorter than one word.
  std::string Make(const PlannedRequest& request) const;
  // Fewer tokens than this no prompt has.
  int32_t least_tokens() const { return words_.first_word_tokens; }
  const WordTokens& words() const { return words_; }

 private:
  const WordTokens words_;
  const PromptOptions options_;
};

}  // namespace quern::bench
