#include "runtime/tokenizer/tokenizer.h"

#include "runtime/formats/file_signature.h"
#include "runtime/tokenizer/special_splitter.h"
#include "runtime/tokenizer/subword_model.h"
#include "runtime/tokenizer/utf8.h"
#include "runtime/tokenizer/vocabulary.h"

namespace quern {
namespace {

constexpr size_t kMaxTextBytes = 256 << 20;

// "<0x0A>" -> 10.
std::optional<char> ByteOfToken(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
  };
  const int high = digit(text[3]);
  const int low = digit(text[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high << 4 | low);
}

class ModelTokenizer final : public Tokenizer {
 public:
  explicit ModelTokenizer(Vocabulary vocabulary)
      : vocabulary_(std::move(vocabulary)), splitter_(vocabulary_) {}

  const Vocabulary& vocabulary() const { return vocabulary_; }

  void SetModel(std::unique_ptr<SubwordModel> model) {
    model_ = std::move(model);
    for (TokenId id = 0; id < vocabulary_.size(); ++id) {
      byte_begins_.push_back(static_cast<uint32_t>(bytes_.size()));
      bytes_ += BytesOf(id);
    }
    byte_begins_.push_back(static_cast<uint32_t>(bytes_.size()));
  }

  Result<std::vector<TokenId>> Encode(std::string_view text, EncodeOptions options) const override {
    if (text.size() > kMaxTextBytes) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "the text is {} bytes long: at most {} are tokenised", text.size(),
                       kMaxTextBytes);
    }
    if (const auto at = FindInvalidUtf8(text)) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "the text is not valid UTF-8: byte {} (0x{:02x}) belongs to no character",
                       *at, static_cast<uint8_t>(text[*at]));
    }
    std::vector<TokenId> ids;
    ids.reserve(text.size() / 3 + 2);
    if (options.add_special && vocabulary_.add_bos) ids.push_back(*vocabulary_.bos);
    bool after_special = true;
    for (const Fragment& fragment : splitter_.Split(text, options.parse_special)) {
      if (fragment.token >= 0) {
        ids.push_back(fragment.token);
      } else {
        QUERN_TRY(model_->Encode(fragment.text, after_special, &ids));
      }
      after_special = fragment.token >= 0;
    }
    if (options.add_special && vocabulary_.add_eos) ids.push_back(*vocabulary_.eos);
    return ids;
  }

  std::string TokenBytes(TokenId id, bool render_special) const override {
    return std::string(BytesView(id, render_special));
  }

  std::string Decode(std::span<const TokenId> ids, bool render_special) const override {
    std::string bytes;
    for (const TokenId id : ids) bytes += BytesView(id, render_special);
    std::string_view text = bytes;
    if (model_->adds_space_prefix() && text.starts_with(' ')) text.remove_prefix(1);
    std::string out;
    out.reserve(text.size());
    AppendReplacingInvalid(text, /*final=*/true, out);
    return out;
  }

  int vocab_size() const override { return vocabulary_.size(); }
  std::optional<TokenId> bos() const override { return vocabulary_.bos; }
  bool adds_bos() const override { return vocabulary_.add_bos; }
  bool IsEndOfGeneration(TokenId id) const override {
    return vocabulary_.Contains(id) && vocabulary_.ends_generation[id];
  }
  bool IsControl(TokenId id) const override {
    return vocabulary_.Contains(id) && (vocabulary_.kind(id) == TokenKind::kControl ||
                                        vocabulary_.kind(id) == TokenKind::kUnknown);
  }

 private:
  std::string BytesOf(TokenId id) const {
    const std::string_view text = vocabulary_.text(id);
    switch (vocabulary_.kind(id)) {
      case TokenKind::kNormal:
        return model_->NormalBytes(text);
      case TokenKind::kByte: {
        const auto byte = ByteOfToken(text);
        return byte ? std::string(1, *byte) : std::string(text);
      }
      case TokenKind::kControl:
      case TokenKind::kUnknown:
      case TokenKind::kUserDefined:
        return std::string(text);
      case TokenKind::kUndefined:
      case TokenKind::kUnused:
        return {};
    }
    return {};
  }

  std::string_view BytesView(TokenId id, bool render_special) const {
    if (!vocabulary_.Contains(id) || (!render_special && IsControl(id))) return {};
    return std::string_view(bytes_).substr(byte_begins_[id],
                                           byte_begins_[id + 1] - byte_begins_[id]);
  }

  const Vocabulary vocabulary_;
  const SpecialSplitter splitter_;
  std::unique_ptr<SubwordModel> model_;
  std::string bytes_;                  // of all tokens, one after the other
  std::vector<uint32_t> byte_begins_;  // vocab_size() + 1
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(const GgufFile& file) {
  QUERN_ASSIGN(const std::string_view model, file.RequireString("tokenizer.ggml.model"));
  const bool is_bpe = model == "gpt2";
  if (!is_bpe && model != "llama") {
    return MakeError(
        ErrorCode::kUnsupported,
        "{}: tokenizer.ggml.model is '{}': 'gpt2' (byte-level BPE) and 'llama' (SentencePiece with "
        "scores) are supported",
        file.path(), Printable(model));
  }
  Vocabulary::Defaults defaults;
  if (is_bpe) {
    QUERN_ASSIGN(defaults.add_bos, ByteLevelBpeAddsBos(file));
  } else {
    defaults = {.bos = 1, .eos = 2, .unknown = 0, .add_bos = true};
  }
  QUERN_ASSIGN(Vocabulary vocabulary, Vocabulary::FromGguf(file, defaults));
  auto tokenizer = std::make_unique<ModelTokenizer>(std::move(vocabulary));
  auto subwords = is_bpe ? MakeByteLevelBpe(file, tokenizer->vocabulary())
                         : MakeSentencePiece(file, tokenizer->vocabulary());
  if (!subwords) return std::move(subwords).error();
  tokenizer->SetModel(std::move(subwords).value());
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

std::string IncrementalDecoder::Push(TokenId id) {
  pending_ += tokenizer_.TokenBytes(id);
  std::string text;
  pending_.erase(0, AppendReplacingInvalid(pending_, /*final=*/false, text));
  return text;
}

std::string IncrementalDecoder::Finish() {
  std::string text;
  AppendReplacingInvalid(pending_, /*final=*/true, text);
  pending_.clear();
  return text;
}

}  // namespace quern
