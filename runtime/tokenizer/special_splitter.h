#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/tokenizer/vocabulary.h"

namespace quern {

// A stretch of text, or a token that was found in it.
struct Fragment {
  std::string_view text;  // where `token` is -1
  TokenId token = -1;
};

// Finds tokens that are taken out of a text before it is tokenised: control tokens ("<|im_end|>")
// when asked for, user-defined ones (Gemma's runs of spaces and newlines) always. The longest token
// wins wherever it is, then the leftmost (llama.cpp's order; Hugging Face's is leftmost first,
// which is the same unless two different tokens overlap). Time is linear in the text times the
// longest token. Thread-safe.
class SpecialSplitter {
 public:
  explicit SpecialSplitter(const Vocabulary& vocabulary);
  // Views into `text`; no fragment is empty.
  std::vector<Fragment> Split(std::string_view text, bool parse_special) const;

 private:
  // A trie over bytes. A node's children lie together, sorted.
  struct Node {
    uint32_t first_child = 0;
    uint16_t children = 0;
    uint8_t byte = 0;
    TokenId token = -1;
    bool only_when_parsing = false;  // control and unknown tokens
  };
  struct Match {
    TokenId token = -1;
    uint32_t length = 0;
  };
  const Node* Child(const Node& node, uint8_t byte) const;
  // The longest token at the front of `text` of at most `limit` bytes.
  Match Longest(std::string_view text, size_t limit, bool parse_special) const;

  std::vector<Node> nodes_;  // [0] is the root
};

}  // namespace quern
