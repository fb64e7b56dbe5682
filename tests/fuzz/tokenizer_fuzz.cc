// Any text to tokens and back, with a small vocabulary of each kind; any token ids through the
// decoder.
#include <cstdint>
#include <cstdlib>

#include "runtime/tokenizer/byte_level.h"
#include "runtime/tokenizer/tokenizer.h"
#include "runtime/tokenizer/utf8.h"
#include "tests/unit/runtime/formats/gguf_writer.h"

namespace {

using quern::testing::GgufWriter;

std::unique_ptr<quern::Tokenizer> Load(const GgufWriter& writer) {
  const auto bytes = writer.Bytes();
  auto file = quern::GgufFile::Parse(quern::testing::AsBytes(bytes), "fuzz");
  auto tokenizer = quern::Tokenizer::FromGguf(**file);
  if (!tokenizer) std::abort();
  return std::move(tokenizer).value();
}

std::unique_ptr<quern::Tokenizer> ByteLevel(const char* pre) {
  std::vector<std::string> tokens;
  std::vector<int32_t> kinds;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    tokens.push_back(quern::ByteLevelEncode({&c, 1}));
    kinds.push_back(1);
  }
  const std::string space = quern::ByteLevelEncode(" ");
  for (const std::string& token :
       {space + space, std::string("ab"), std::string("abc"), space + "a"}) {
    tokens.push_back(token);
    kinds.push_back(1);
  }
  tokens.push_back("<|end|>");
  kinds.push_back(3);
  return Load(
      GgufWriter()
          .String("tokenizer.ggml.model", "gpt2")
          .String("tokenizer.ggml.pre", pre)
          .Bool("tokenizer.ggml.add_bos_token", false)
          .Strings("tokenizer.ggml.tokens", tokens)
          .Ints("tokenizer.ggml.token_type", kinds)
          .Strings("tokenizer.ggml.merges", {space + " " + space, "a b", "ab c", space + " a"}));
}

std::unique_ptr<quern::Tokenizer> SentencePiece() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> kinds = {2, 3, 3};
  std::vector<float> scores = {0, 0, 0};
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back(fmt::format("<0x{:02X}>", byte));
    kinds.push_back(6);
    scores.push_back(0);
  }
  for (const char* token :
       {"a", "b", "ab", "aba", "\u2581", "\u2581a", "\u2581\u2581", "b\u2581", "\u00e9"}) {
    tokens.push_back(token);
    kinds.push_back(1);
    scores.push_back(-static_cast<float>(tokens.size()));
  }
  for (const char* token : {"\n\n", "\n\n\n", "ba"}) {
    tokens.push_back(token);
    kinds.push_back(4);
    scores.push_back(-1000);
  }
  return Load(GgufWriter()
                  .String("tokenizer.ggml.model", "llama")
                  .Bool("tokenizer.ggml.add_space_prefix", false)
                  .Strings("tokenizer.ggml.tokens", tokens)
                  .Ints("tokenizer.ggml.token_type", kinds)
                  .Floats("tokenizer.ggml.scores", scores));
}

void Check(const quern::Tokenizer& tokenizer, std::string_view text) {
  for (const bool special : {false, true}) {
    const auto ids = tokenizer.Encode(text, {.add_special = false, .parse_special = special});
    if (ids.ok() == quern::FindInvalidUtf8(text).has_value()) std::abort();
    if (!ids) continue;
    // Every byte has a token in these vocabularies. U+2581 stands for the space in SentencePiece.
    if (tokenizer.Decode(*ids, true) != text && text.find("\u2581") == std::string_view::npos)
      std::abort();
  }
  std::string streamed;
  std::vector<quern::TokenId> ids;
  quern::IncrementalDecoder decoder(tokenizer);
  for (const char c : text) {
    ids.push_back(static_cast<uint8_t>(c) * 3 - 5);  // also out of range
    const std::string part = decoder.Push(ids.back());
    if (quern::FindInvalidUtf8(part)) std::abort();
    streamed += part;
  }
  streamed += decoder.Finish();
  const std::string whole = tokenizer.Decode(ids);
  if (streamed != whole) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokenizers = [] {
    std::vector<std::unique_ptr<quern::Tokenizer>> all;
    for (const char* pre : {"smollm", "llama-bpe", "gpt-4o", "tekken"})
      all.push_back(ByteLevel(pre));
    all.push_back(SentencePiece());
    return all;
  }();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto& tokenizer : tokenizers) Check(*tokenizer, text);
  return 0;
}
