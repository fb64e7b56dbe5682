// SentencePiece's BPE: neighbours are merged whose text is the token with the highest score, until
// none is left; characters without a token become single bytes. As in llama.cpp's SPM tokenizer
// and, without its normaliser, google/sentencepiece (bpe_model.cc).

#include <fmt/format.h>

#include <array>
#include <bitset>
#include <unordered_set>

#include "runtime/tokenizer/merge.h"
#include "runtime/tokenizer/subword_model.h"
#include "runtime/tokenizer/utf8.h"

namespace quern {
namespace {

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581
constexpr uint32_t kSpaceMarkCodePoint = 0x2581;

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  size_t at = 0;
  for (size_t found = text.find(from); found != std::string_view::npos;
       found = text.find(from, at)) {
    out.append(text.substr(at, found - at)).append(to);
    at = found + from.size();
  }
  out.append(text.substr(at));
  return out;
}

class SentencePiece final : public SubwordModel {
 public:
  SentencePiece(const Vocabulary& vocabulary, bool add_space_prefix)
      : vocabulary_(vocabulary), add_space_prefix_(add_space_prefix) {
    for (int byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      TokenId token = vocabulary.Find(fmt::format("<0x{:02X}>", byte));
      if (token < 0) token = vocabulary.Find({&c, 1});
      if (token < 0) token = vocabulary.unknown.value_or(-1);
      byte_tokens_[byte] = token;
    }
    for (TokenId id = 0; id < vocabulary.size(); ++id) NoteToken(vocabulary.text(id));
  }

  Status Encode(std::string_view raw, bool after_special,
                std::vector<TokenId>* ids) const override {
    std::string text = add_space_prefix_ && after_special ? std::string(kSpaceMark) : std::string();
    text += ReplaceAll(raw, " ", kSpaceMark);
    std::vector<Symbol> symbols;
    uint32_t previous = 0;
    size_t word = 0;  // where the symbols begin
    for (size_t at = 0; at < text.size();) {
      const std::string_view rest = std::string_view(text).substr(at);
      const size_t length = Utf8CharBytes(rest);
      if (length == 0) {
        return MakeError(ErrorCode::kInternal, "the text is not valid UTF-8 at byte {}", at);
      }
      const uint32_t code_point = DecodeUtf8Char(rest, length);
      if (code_point == kSpaceMarkCodePoint && at > 0 && !JoinsSpaceMark(previous)) {
        EncodeWord(std::string_view(text).substr(word, at - word), symbols, ids);
        word = at;
      }
      symbols.push_back({static_cast<uint32_t>(at - word), static_cast<uint32_t>(length),
                         vocabulary_.Find(rest.substr(0, length))});
      previous = code_point;
      at += length;
    }
    EncodeWord(std::string_view(text).substr(word), symbols, ids);
    return {};
  }

  std::string NormalBytes(std::string_view token_text) const override {
    return ReplaceAll(token_text, kSpaceMark, " ");
  }

  bool adds_space_prefix() const override { return add_space_prefix_; }

 private:
  // Two characters that no token has side by side never merge, so the text can be cut between them
  // without changing the result: words are short, and merging a long text stays linear. Only cuts
  // before a space mark are worth it.
  bool JoinsSpaceMark(uint32_t code_point) const {
    return code_point < 128 ? ascii_joins_.test(code_point) : others_join_.contains(code_point);
  }

  void NoteToken(std::string_view text) {
    longest_token_ = std::max(longest_token_, text.size());
    for (size_t found = text.find(kSpaceMark, 1); found != std::string_view::npos;
         found = text.find(kSpaceMark, found + 1)) {
      size_t begin = found - 1;  // of the character before
      while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xc0) == 0x80) --begin;
      const size_t length = Utf8CharBytes(text.substr(begin, found - begin));
      if (length == 0) continue;  // not UTF-8: can never be in a text
      const uint32_t code_point = DecodeUtf8Char(text.substr(begin), length);
      if (code_point < 128) {
        ascii_joins_.set(code_point);
      } else {
        others_join_.insert(code_point);
      }
    }
  }

  void EncodeWord(std::string_view word, std::vector<Symbol>& symbols,
                  std::vector<TokenId>* ids) const {
    MergeSymbols(symbols, [&](const Symbol& left, const Symbol& right) -> Merge {
      const size_t length = left.length + right.length;
      if (length > longest_token_) return {};
      const TokenId token = vocabulary_.Find(word.substr(left.begin, length));
      if (token < 0) return {};
      return {-static_cast<double>(vocabulary_.score(token)), token};
    });
    for (const Symbol& symbol : symbols) {
      if (symbol.piece >= 0) {
        ids->push_back(symbol.piece);
        continue;
      }
      for (const char byte : word.substr(symbol.begin, symbol.length)) {
        if (const TokenId token = byte_tokens_[static_cast<uint8_t>(byte)]; token >= 0)
          ids->push_back(token);
      }
    }
    symbols.clear();
  }

  const Vocabulary& vocabulary_;
  const bool add_space_prefix_;
  std::array<TokenId, 256> byte_tokens_{};
  std::bitset<128> ascii_joins_;  // characters that some token has before a space mark
  std::unordered_set<uint32_t> others_join_;
  size_t longest_token_ = 0;
};

}  // namespace

Result<std::unique_ptr<SubwordModel>> MakeSentencePiece(const GgufFile& file,
                                                        const Vocabulary& vocabulary) {
  if (!file.Has("tokenizer.ggml.scores")) {
    return MakeError(ErrorCode::kDataLoss,
                     "{}: metadata key 'tokenizer.ggml.scores' is missing: tokenizer.ggml.model "
                     "'llama' needs it",
                     file.path());
  }
  const bool add_space_prefix = file.FindBool("tokenizer.ggml.add_space_prefix").value_or(true);
  return std::unique_ptr<SubwordModel>(
      std::make_unique<SentencePiece>(vocabulary, add_space_prefix));
}

}  // namespace quern
