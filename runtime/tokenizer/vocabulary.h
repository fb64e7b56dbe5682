#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/formats/gguf.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern {

// Kinds of tokens, with GGUF's numbers (tokenizer.ggml.token_type).
enum class TokenKind : uint8_t {
  kUndefined = 0,
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// Whether a token of this kind is looked for in a text before the text is cut into words.
constexpr bool IsSpecial(TokenKind kind) {
  return kind == TokenKind::kControl || kind == TokenKind::kUnknown ||
         kind == TokenKind::kUserDefined;
}

// Different texts, numbered from 0 in the order they were added, and found again by a hash table
// with open addressing: 8 bytes a slot, so that 262,144 tokens take 4 MB and a look-up mostly one
// cache miss.
class TextTable {
 public:
  TextTable() : TextTable(0) {}
  explicit TextTable(size_t expected);

  // The text's number; one that is there already keeps the one it has.
  TokenId Add(std::string_view text);
  TokenId Find(std::string_view text) const;  // -1 if it is not there
  int size() const { return static_cast<int>(begins_.size()) - 1; }
  std::string_view text(TokenId id) const {
    return {arena_.data() + begins_[id], begins_[id + 1] - begins_[id]};
  }

 private:
  struct Slot {
    uint32_t hash = 0;
    TokenId id = -1;
  };
  size_t FindSlot(std::string_view text, uint32_t hash) const;
  void Grow(size_t slots);

  std::vector<char> arena_;
  std::vector<uint32_t> begins_{0};  // size() + 1
  std::vector<Slot> slots_;          // a power of two, at most three quarters full
};

// The tokens of a model with their kinds, scores and special roles. Immutable, thread-safe.
class Vocabulary {
 public:
  // Reads tokenizer.ggml.*. `default_bos` and the like hold where the file names none; out of
  // range, they are nobody. Errors: kDataLoss (missing, contradictory or duplicate tokens, special
  // ones that are not valid UTF-8).
  struct Defaults {
    std::optional<TokenId> bos, eos, unknown;
    bool add_bos = false;
  };
  static Result<Vocabulary> FromGguf(const GgufFile& file, const Defaults& defaults);

  int size() const { return static_cast<int>(kinds_.size()); }
  std::string_view text(TokenId id) const { return texts_.text(id); }
  TokenKind kind(TokenId id) const { return kinds_[id]; }
  float score(TokenId id) const { return scores_.empty() ? 0.0f : scores_[id]; }
  TokenId Find(std::string_view text) const { return texts_.Find(text); }  // -1 if there is none
  bool Contains(TokenId id) const { return id >= 0 && id < size(); }

  std::optional<TokenId> bos, eos, unknown;
  bool add_bos = false;
  bool add_eos = false;
  std::vector<bool> ends_generation;  // by id

 private:
  Vocabulary() = default;
  Status ReadTokens(const GgufFile& file);
  Status ReadKinds(const GgufFile& file);
  Status CheckSpecialTexts(const GgufFile& file) const;
  Status ReadScores(const GgufFile& file);
  Status ReadRoles(const GgufFile& file, const Defaults& defaults);
  void FindEndsOfGeneration(const GgufFile& file);

  TextTable texts_;
  std::vector<TokenKind> kinds_;
  std::vector<float> scores_;  // empty, or one each
};

}  // namespace quern
