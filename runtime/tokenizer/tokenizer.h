#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/formats/gguf.h"

namespace quern {

using TokenId = int32_t;

struct EncodeOptions {
  bool add_special = true;  // BOS/EOS as the model's metadata asks
  bool parse_special =
      false;  // text such as "<|im_start|>" becomes the control token, not its letters
};

// Text to token ids and back. Immutable after loading; all members are thread-safe.
class Tokenizer {
 public:
  // Byte-level BPE ("gpt2") and SentencePiece with scores ("llama") from GGUF metadata.
  // Errors: kUnsupported (tokenizer.ggml.model or .pre not known, listing those that are),
  // kDataLoss. Copies what it needs: `file` may be closed afterwards.
  static Result<std::unique_ptr<Tokenizer>> FromGguf(const GgufFile& file);
  virtual ~Tokenizer() = default;

  // `text` must be valid UTF-8 (checked: kInvalidArgument with the byte offset).
  virtual Result<std::vector<TokenId>> Encode(std::string_view text,
                                              EncodeOptions options = {}) const = 0;
  // The raw bytes of one token: may be part of a UTF-8 character. Control tokens give their text
  // when `render_special`, else nothing. Ids out of range give nothing.
  virtual std::string TokenBytes(TokenId id, bool render_special = false) const = 0;
  // All bytes of the tokens, invalid UTF-8 replaced by U+FFFD. Where the model puts a space before
  // the first word (Llama 2 does), one space at the front is taken away again; for text that goes
  // on from a prompt, such as generated tokens, use IncrementalDecoder, which keeps it.
  virtual std::string Decode(std::span<const TokenId> ids, bool render_special = false) const = 0;

  virtual int vocab_size() const = 0;
  virtual std::optional<TokenId> bos() const = 0;
  virtual bool adds_bos() const = 0;
  // EOS, EOT and the like: a sequence ends when one of them is sampled.
  virtual bool IsEndOfGeneration(TokenId id) const = 0;
  virtual bool IsControl(TokenId id) const = 0;
};

// Turns a growing sequence of tokens into text that is valid UTF-8 at every call: holds back at
// most 3 bytes of an unfinished character. One per sequence; not thread-safe.
class IncrementalDecoder {
 public:
  explicit IncrementalDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string Push(TokenId id);  // the text that this token completes
  std::string Finish();          // what was held back, as U+FFFD

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
};

}  // namespace quern
