#pragma once

#include <array>
#include <string>
#include <vector>

#include "runtime/tokenizer/tokenizer.h"

namespace quern {

// A tokenizer small enough to see through: ids 0 to 255 are the bytes, 256 ends a generation, the
// others are pieces of several bytes.
class ByteTokenizer : public Tokenizer {
 public:
  static constexpr TokenId kEnd = 256;
  static constexpr std::array<const char*, 5> kPieces = {"ab", "\xC3\xA9", "END", "xEN", "D. "};
  static constexpr int kVocabSize = 257 + static_cast<int>(kPieces.size());

  Result<std::vector<TokenId>> Encode(std::string_view text, EncodeOptions) const override {
    std::vector<TokenId> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::string TokenBytes(TokenId id, bool) const override {
    if (id >= 0 && id < 256) return std::string(1, static_cast<char>(id));
    if (id > kEnd && id < kVocabSize) return kPieces[static_cast<size_t>(id - kEnd - 1)];
    return {};
  }
  std::string Decode(std::span<const TokenId> ids, bool) const override {
    IncrementalDecoder decoder(*this);
    std::string text;
    for (const TokenId id : ids) text += decoder.Push(id);
    return text + decoder.Finish();
  }
  int vocab_size() const override { return kVocabSize; }
  std::optional<TokenId> bos() const override { return std::nullopt; }
  bool adds_bos() const override { return false; }
  bool IsEndOfGeneration(TokenId id) const override { return id == kEnd; }
  bool IsControl(TokenId id) const override { return id == kEnd; }
};

inline std::vector<TokenId> Bytes(std::string_view text) {
  return ByteTokenizer().Encode(text, {}).value();
}

}  // namespace quern
