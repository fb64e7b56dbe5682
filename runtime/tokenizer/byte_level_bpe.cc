// Byte-level BPE as GPT-2 introduced it: https://github.com/openai/gpt-2/blob/master/src/encoder.py

#include <array>
#include <bit>

#include "runtime/formats/file_signature.h"
#include "runtime/tokenizer/byte_level.h"
#include "runtime/tokenizer/merge.h"
#include "runtime/tokenizer/pre_tokenizer.h"
#include "runtime/tokenizer/subword_model.h"

namespace quern {
namespace {

constexpr size_t kMaxMerges = 1 << 24;

// (left piece, right piece) -> (rank, piece of both): open addressing, at most half full.
class MergeTable {
 public:
  explicit MergeTable(size_t merges)
      : slots_(std::bit_ceil(merges * 2 + 2)), mask_(slots_.size() - 1) {}

  // The first of several merges of the same pair counts, as its rank is the lower.
  void Add(int32_t left, int32_t right, int32_t rank, int32_t piece) {
    Slot& slot = slots_[Index(left, right)];
    if (slot.left < 0) slot = {left, right, rank, piece};
  }
  Merge Find(int32_t left, int32_t right) const {
    const Slot& slot = slots_[Index(left, right)];
    return slot.left < 0 ? Merge{} : Merge{static_cast<double>(slot.rank), slot.piece};
  }

 private:
  struct Slot {
    int32_t left = -1, right = -1, rank = 0, piece = -1;
  };
  size_t Index(int32_t left, int32_t right) const {
    const uint64_t key =
        static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
    size_t i = (key * 0x9e3779b97f4a7c15u >> 32) & mask_;
    while (slots_[i].left >= 0 && (slots_[i].left != left || slots_[i].right != right))
      i = (i + 1) & mask_;
    return i;
  }

  std::vector<Slot> slots_;
  size_t mask_;
};

// Texts that occur in merges, or stand for a byte, and are no tokens are pieces too, numbered after
// the tokens.
class Pieces {
 public:
  explicit Pieces(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}
  int32_t Number(std::string_view text) {
    const TokenId token = vocabulary_.Find(text);
    return token >= 0 ? token : vocabulary_.size() + others_.Add(text);
  }
  std::string_view text(int32_t piece) const {
    return piece < vocabulary_.size() ? vocabulary_.text(piece)
                                      : others_.text(piece - vocabulary_.size());
  }

 private:
  const Vocabulary& vocabulary_;
  TextTable others_;
};

class ByteLevelBpe final : public SubwordModel {
 public:
  ByteLevelBpe(const Vocabulary& vocabulary, std::unique_ptr<PreTokenizer> pre_tokenizer,
               size_t merges)
      : vocabulary_(vocabulary),
        pre_tokenizer_(std::move(pre_tokenizer)),
        pieces_(vocabulary),
        merges_(merges) {
    for (int byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      byte_pieces_[byte] = pieces_.Number(ByteLevelEncode({&c, 1}));
    }
  }

  Status ReadMerges(const std::vector<std::string_view>& lines, const std::string& path) {
    for (size_t rank = 0; rank < lines.size(); ++rank) {
      const std::string_view line = lines[rank];
      const size_t space = line.find(' ', 1);
      if (space == std::string_view::npos || space + 1 == line.size()) {
        return MakeError(
            ErrorCode::kDataLoss,
            "{}: tokenizer.ggml.merges[{}] is '{}': two texts with a space between would be right",
            path, rank, Printable(line));
      }
      const std::string_view left = line.substr(0, space);
      const std::string_view right = line.substr(space + 1);
      const int32_t both = pieces_.Number(std::string(left) + std::string(right));
      merges_.Add(pieces_.Number(left), pieces_.Number(right), static_cast<int32_t>(rank), both);
    }
    return {};
  }

  Status Encode(std::string_view text, bool /*after_special*/,
                std::vector<TokenId>* ids) const override {
    std::vector<uint32_t> ends;
    QUERN_TRY(pre_tokenizer_->Split(text, &ends));
    std::vector<Symbol> symbols;
    uint32_t begin = 0;
    for (const uint32_t end : ends) {
      EncodeWord(text.substr(begin, end - begin), symbols, ids);
      begin = end;
    }
    return {};
  }

  std::string NormalBytes(std::string_view token_text) const override {
    // A token outside the alphabet was added by hand: it is its own text.
    return ByteLevelDecode(token_text).value_or(std::string(token_text));
  }

  bool adds_space_prefix() const override { return false; }

 private:
  void EncodeWord(std::string_view word, std::vector<Symbol>& symbols,
                  std::vector<TokenId>* ids) const {
    if (pre_tokenizer_->traits().ignore_merges) {
      if (const TokenId token = vocabulary_.Find(ByteLevelEncode(word)); token >= 0) {
        ids->push_back(token);
        return;
      }
    }
    symbols.clear();
    for (uint32_t i = 0; i < word.size(); ++i) {
      symbols.push_back({i, 1, byte_pieces_[static_cast<uint8_t>(word[i])]});
    }
    MergeSymbols(symbols, [this](const Symbol& left, const Symbol& right) {
      return merges_.Find(left.piece, right.piece);
    });
    for (const Symbol& symbol : symbols) Emit(symbol.piece, ids);
  }

  // A piece that is no token is given as those of its characters that are, as llama.cpp does.
  // (SmolLM2 has no token for 8 of the bytes that UTF-8 uses: characters that need them lose those
  // bytes.)
  void Emit(int32_t piece, std::vector<TokenId>* ids) const {
    if (vocabulary_.Contains(piece)) {
      ids->push_back(piece);
      return;
    }
    const std::string_view text = pieces_.text(piece);
    for (size_t i = 0; i < text.size(); ++i) {
      if (const TokenId token = vocabulary_.Find(text.substr(i, 1)); token >= 0)
        ids->push_back(token);
    }
  }

  const Vocabulary& vocabulary_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  Pieces pieces_;
  MergeTable merges_;
  std::array<int32_t, 256> byte_pieces_{};
};

Result<std::unique_ptr<PreTokenizer>> FindPreTokenizer(const GgufFile& file) {
  const auto name = file.FindString("tokenizer.ggml.pre");
  if (!name || *name == "default") {
    return MakeError(ErrorCode::kUnsupported,
                     "{}: tokenizer.ggml.pre is {}, so how the model cuts text into words is not "
                     "known: convert it again with a newer converter, which writes the name",
                     file.path(), name ? "'default'" : "missing");
  }
  auto found = PreTokenizer::Find(*name);
  if (!found) return std::move(found).error().Within(file.path());
  return found;
}

}  // namespace

Result<bool> ByteLevelBpeAddsBos(const GgufFile& file) {
  QUERN_ASSIGN(const auto pre_tokenizer, FindPreTokenizer(file));
  return pre_tokenizer->traits().add_bos;
}

Result<std::unique_ptr<SubwordModel>> MakeByteLevelBpe(const GgufFile& file,
                                                       const Vocabulary& vocabulary) {
  QUERN_ASSIGN(auto pre_tokenizer, FindPreTokenizer(file));
  const auto merges = file.FindStringArray("tokenizer.ggml.merges");
  if (!merges || merges->size() > kMaxMerges) {
    return MakeError(
        ErrorCode::kDataLoss,
        "{}: tokenizer.ggml.merges must be an array of at most {} strings for tokenizer.ggml.model "
        "'gpt2'",
        file.path(), kMaxMerges);
  }
  auto model = std::make_unique<ByteLevelBpe>(vocabulary, std::move(pre_tokenizer), merges->size());
  QUERN_TRY(model->ReadMerges(*merges, file.path()));
  return std::unique_ptr<SubwordModel>(std::move(model));
}

}  // namespace quern
