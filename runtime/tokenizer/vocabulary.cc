#include "runtime/tokenizer/vocabulary.h"

#include <bit>
#include <cmath>
#include <functional>

#include "runtime/formats/file_signature.h"
#include "runtime/tokenizer/utf8.h"

namespace quern {
namespace {

constexpr size_t kMaxTokens = 1 << 24;
constexpr size_t kMaxVocabularyBytes = UINT32_MAX;

// Tokens that end a turn or a text in models whose metadata does not say so. The list is
// llama.cpp's (llama-vocab.cpp), so that a model stops here where it stops there.
constexpr std::string_view kEndTexts[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    // Padding and separators of fill-in-the-middle.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
};

uint32_t Hash(std::string_view text) {
  const size_t hash = std::hash<std::string_view>()(text);
  return static_cast<uint32_t>(hash ^ (hash >> 32));
}

Error Bad(const GgufFile& file, std::string_view what) {
  return MakeError(ErrorCode::kDataLoss, "{}: {}", file.path(), what);
}

}  // namespace

TextTable::TextTable(size_t expected) { Grow(std::bit_ceil(expected + expected / 2 + 8)); }

void TextTable::Grow(size_t slots) {
  slots_.assign(slots, {});
  for (TokenId id = 0; id < size(); ++id) {
    const uint32_t hash = Hash(text(id));
    slots_[FindSlot(text(id), hash)] = {hash, id};
  }
}

// The slot that holds `text`, or the empty one where it would go.
size_t TextTable::FindSlot(std::string_view wanted, uint32_t hash) const {
  const size_t mask = slots_.size() - 1;
  for (size_t i = hash & mask;; i = (i + 1) & mask) {
    const Slot& slot = slots_[i];
    if (slot.id < 0 || (slot.hash == hash && text(slot.id) == wanted)) return i;
  }
}

TokenId TextTable::Add(std::string_view added) {
  const uint32_t hash = Hash(added);
  const size_t slot = FindSlot(added, hash);
  if (slots_[slot].id >= 0) return slots_[slot].id;
  const TokenId id = size();
  arena_.insert(arena_.end(), added.begin(), added.end());
  begins_.push_back(static_cast<uint32_t>(arena_.size()));
  slots_[slot] = {hash, id};
  if (begins_.size() > slots_.size() / 4 * 3) Grow(slots_.size() * 2);
  return id;
}

TokenId TextTable::Find(std::string_view text) const {
  return slots_[FindSlot(text, Hash(text))].id;
}

Result<Vocabulary> Vocabulary::FromGguf(const GgufFile& file, const Defaults& defaults) {
  Vocabulary vocabulary;
  QUERN_TRY(vocabulary.ReadTokens(file));
  QUERN_TRY(vocabulary.ReadKinds(file));
  QUERN_TRY(vocabulary.ReadScores(file));
  QUERN_TRY(vocabulary.ReadRoles(file, defaults));
  vocabulary.FindEndsOfGeneration(file);
  return vocabulary;
}

Status Vocabulary::ReadTokens(const GgufFile& file) {
  const auto tokens = file.FindStringArray("tokenizer.ggml.tokens");
  if (!tokens)
    return Bad(file, "metadata key 'tokenizer.ggml.tokens' (an array of strings) is missing");
  if (tokens->empty() || tokens->size() > kMaxTokens) {
    return Bad(file, fmt::format("tokenizer.ggml.tokens holds {} tokens: 1 to {} would be right",
                                 tokens->size(), kMaxTokens));
  }
  texts_ = TextTable(tokens->size());
  uint64_t bytes = 0;
  for (size_t i = 0; i < tokens->size(); ++i) {
    const std::string empty_name = fmt::format("[EMPTY_{}]", i);
    const std::string_view text =
        (*tokens)[i].empty() ? std::string_view(empty_name) : (*tokens)[i];
    bytes += text.size();
    if (bytes > kMaxVocabularyBytes) return Bad(file, "tokenizer.ggml.tokens is larger than 4 GiB");
    if (const TokenId id = texts_.Add(text); id != static_cast<TokenId>(i)) {
      return Bad(file, fmt::format("tokenizer.ggml.tokens holds '{}' twice, as {} and {}",
                                   Printable(text), id, i));
    }
  }
  kinds_.assign(tokens->size(), TokenKind::kNormal);
  return {};
}

Status Vocabulary::ReadKinds(const GgufFile& file) {
  if (!file.Has("tokenizer.ggml.token_type")) return {};
  const auto kinds = file.FindIntArray("tokenizer.ggml.token_type", kinds_.size());
  if (!kinds || kinds->size() != kinds_.size()) {
    return Bad(
        file,
        fmt::format("tokenizer.ggml.token_type must be an array of {} integers, one for each token",
                    size()));
  }
  for (size_t i = 0; i < kinds->size(); ++i) {
    const int64_t kind = (*kinds)[i];
    kinds_[i] = kind >= 0 && kind <= 6 ? static_cast<TokenKind>(kind) : TokenKind::kUndefined;
  }
  return CheckSpecialTexts(file);
}

// Text is cut around special tokens wherever their bytes are: one that is no whole character would
// cut through a character, and what is left would be no text.
Status Vocabulary::CheckSpecialTexts(const GgufFile& file) const {
  for (TokenId id = 0; id < size(); ++id) {
    if (!IsSpecial(kind(id)) || !FindInvalidUtf8(text(id))) continue;
    return Bad(file, fmt::format("tokenizer.ggml.tokens[{}] is '{}', a special token whose text is "
                                 "not valid UTF-8",
                                 id, Printable(text(id))));
  }
  return {};
}

Status Vocabulary::ReadScores(const GgufFile& file) {
  if (!file.Has("tokenizer.ggml.scores")) return {};
  auto scores = file.FindFloatArray("tokenizer.ggml.scores");
  if (!scores || scores->size() != kinds_.size()) {
    return Bad(
        file, fmt::format("tokenizer.ggml.scores must be an array of {} floats, one for each token",
                          size()));
  }
  for (size_t i = 0; i < scores->size(); ++i) {
    if (!std::isfinite((*scores)[i])) {
      return Bad(file, fmt::format("tokenizer.ggml.scores[{}] is not a finite number", i));
    }
  }
  scores_ = std::move(*scores);
  return {};
}

Status Vocabulary::ReadRoles(const GgufFile& file, const Defaults& defaults) {
  const auto read = [&](const char* key, std::optional<TokenId> otherwise,
                        std::optional<TokenId>* role) -> Status {
    *role = otherwise && Contains(*otherwise) ? otherwise : std::nullopt;
    if (!file.Has(key)) return {};
    const auto id = file.FindUint(key);
    if (!id || *id >= static_cast<uint64_t>(size())) {
      return Bad(file, fmt::format("{} must be a token's id, 0 to {}", key, size() - 1));
    }
    *role = static_cast<TokenId>(*id);
    return {};
  };
  QUERN_TRY(read("tokenizer.ggml.bos_token_id", defaults.bos, &bos));
  QUERN_TRY(read("tokenizer.ggml.eos_token_id", defaults.eos, &eos));
  QUERN_TRY(read("tokenizer.ggml.unknown_token_id", defaults.unknown, &unknown));
  add_bos = file.FindBool("tokenizer.ggml.add_bos_token").value_or(defaults.add_bos);
  add_eos = file.FindBool("tokenizer.ggml.add_eos_token").value_or(false);
  if (add_bos && !bos) {
    return Bad(file,
               "tokenizer.ggml.add_bos_token is true, but tokenizer.ggml.bos_token_id is missing");
  }
  if (add_eos && !eos) {
    return Bad(file,
               "tokenizer.ggml.add_eos_token is true, but tokenizer.ggml.eos_token_id is missing");
  }
  return {};
}

void Vocabulary::FindEndsOfGeneration(const GgufFile& file) {
  ends_generation.assign(kinds_.size(), false);
  const auto mark = [&](TokenId id) {
    if (Contains(id)) ends_generation[id] = true;
  };
  for (const std::string_view text : kEndTexts) mark(Find(text));
  // "</s>" is also the HTML tag in vocabularies that keep tags as tokens (Gemma's).
  if (const TokenId id = Find("</s>"); id >= 0 && kinds_[id] == TokenKind::kControl) mark(id);
  // In these formats "<|end|>" ends a message, and the turn goes on.
  if (Find("<|call|>") >= 0 && Find("<|return|>") >= 0) {
    if (const TokenId id = Find("<|end|>"); id >= 0) ends_generation[id] = false;
  }
  if (eos) mark(*eos);
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    if (const auto id = file.FindUint(key); id && *id < kinds_.size())
      mark(static_cast<TokenId>(*id));
  }
  if (const auto ids = file.FindIntArray("tokenizer.ggml.eos_token_ids", kinds_.size())) {
    for (const int64_t id : *ids) {
      if (id >= 0 && id < size()) mark(static_cast<TokenId>(id));
    }
  }
}

}  // namespace quern
