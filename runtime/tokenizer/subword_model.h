#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/vocabulary.h"

namespace quern {

// How ordinary text becomes tokens, and tokens bytes. Immutable, thread-safe.
class SubwordModel {
 public:
  virtual ~SubwordModel() = default;
  // Appends the tokens of `text` (valid UTF-8, not empty), which holds no special token.
  // `after_special`: it stands at the beginning, or after a special token.
  virtual Status Encode(std::string_view text, bool after_special,
                        std::vector<TokenId>* ids) const = 0;
  // The bytes that a token of kind normal stands for.
  virtual std::string NormalBytes(std::string_view token_text) const = 0;
  // Encode() puts a space before the first word, which decoding takes away again.
  virtual bool adds_space_prefix() const = 0;
};

// Byte-level BPE (tokenizer.ggml.model "gpt2"). `vocabulary` outlives the model.
Result<std::unique_ptr<SubwordModel>> MakeByteLevelBpe(const GgufFile& file,
                                                       const Vocabulary& vocabulary);
// What the pre-tokenizer of the file says about BOS, which the vocabulary needs to know first.
Result<bool> ByteLevelBpeAddsBos(const GgufFile& file);

// SentencePiece's BPE by scores (tokenizer.ggml.model "llama"), with single bytes for what has no
// token. `vocabulary` outlives the model.
Result<std::unique_ptr<SubwordModel>> MakeSentencePiece(const GgufFile& file,
                                                        const Vocabulary& vocabulary);

}  // namespace quern
