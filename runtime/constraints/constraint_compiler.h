#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/constraints/constraint.h"
#include "runtime/constraints/constraint_spec.h"

struct LlgTokenizer;  // of llguidance.h

namespace quern {

// What the compiler must know of a model's tokens.
struct ConstraintVocabulary {
  // The bytes that each token adds to the text. Empty for those that add none (control tokens,
  // unused ids): an answer never has them, but for those of the next list where it ends.
  std::vector<std::string> token_bytes;
  std::vector<int32_t> end_of_generation;  // at least one
};

// Bounds of one constraint's work and memory. The library's own units; what they mean on a machine
// of 2024 is said beside them.
struct ConstraintLimits {
  uint64_t compile_fuel = 1'000'000;  // nodes of regular expressions made: 20 ms
  uint64_t step_fuel = 200'000;       // the same, for one mask: 14 ms
  size_t step_items = 50'000;         // parser items for one mask: 3 ms
  size_t items_in_row = 2'000;        // parser items after one byte
  size_t lexer_states = 20'000;       // of 1 to 2 kB each
  size_t grammar_size = 100'000;      // symbols in the productions
  size_t cached = 32;                 // compiled constraints that are kept
};

// Turns what clients write into constraints over one model's vocabulary, and keeps the latest
// compiled ones, so that a schema sent again costs a copy. Thread-safe: compiles run side by side.
class ConstraintCompiler {
 public:
  // Sorts the vocabulary into a trie: some hundred milliseconds for 262,144 tokens.
  // kInvalidArgument: no tokens, or no end-of-generation token among them.
  static Result<std::unique_ptr<ConstraintCompiler>> Create(const ConstraintVocabulary& vocabulary,
                                                            const ConstraintLimits& limits = {});
  ~ConstraintCompiler();
  ConstraintCompiler(const ConstraintCompiler&) = delete;
  ConstraintCompiler& operator=(const ConstraintCompiler&) = delete;

  // A constraint at its start. kInvalidArgument, saying what in `spec` is wrong, not supported, too
  // large, or such that nothing can match it. Takes milliseconds; not for the step loop's thread.
  Result<std::unique_ptr<Constraint>> Compile(const ConstraintSpec& spec);

 private:
  struct Cached {
    std::string key;
    std::unique_ptr<Constraint> prototype;  // never advanced
  };

  ConstraintCompiler(LlgTokenizer* tokenizer, const ConstraintVocabulary& vocabulary,
                     const ConstraintLimits& limits);
  Result<std::unique_ptr<Constraint>> Build(const ConstraintSpec& spec) const;
  std::unique_ptr<Constraint> FindCached(const std::string& key);
  void Keep(std::string key, std::unique_ptr<Constraint> prototype);

  LlgTokenizer* const tokenizer_;
  const size_t vocab_size_;
  const std::shared_ptr<const Constraint::Tokens> ends_;
  const ConstraintLimits limits_;

  std::mutex mutex_;          // of the two below
  std::list<Cached> recent_;  // the latest used first
  std::unordered_map<std::string, std::list<Cached>::iterator> by_key_;
};

}  // namespace quern
