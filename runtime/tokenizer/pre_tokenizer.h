#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"

namespace quern {

// Cuts a text into the words that byte-level BPE then merges in: by one or more regular
// expressions, each applied to what the one before left. What an expression does not match is a
// piece of its own. Thread-safe. Letters and digits are those of PCRE2's Unicode (14.0 in Debian
// 12).
class PreTokenizer {
 public:
  // What a tokenizer.ggml.pre means besides its expressions.
  struct Traits {
    bool ignore_merges = false;  // a word that is a token is that token, however its merges go
    bool add_bos = false;        // unless the metadata says otherwise
  };

  // Errors: kUnsupported, listing the names that are known.
  static Result<std::unique_ptr<PreTokenizer>> Find(std::string_view name);
  ~PreTokenizer();

  const Traits& traits() const { return traits_; }
  // Writes the offsets where pieces end, ascending; the last is text.size(). `text` is valid UTF-8.
  // Errors: kResourceExhausted if an expression met the matcher's limits.
  Status Split(std::string_view text, std::vector<uint32_t>* ends) const;

  static std::vector<std::string> KnownNames();

 private:
  struct Expressions;  // compiled
  PreTokenizer(std::unique_ptr<Expressions> expressions, Traits traits);

  std::unique_ptr<Expressions> expressions_;
  Traits traits_;
};

}  // namespace quern
