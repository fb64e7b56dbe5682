// Tokenizers of files made for the occasion; the real ones are in tokenizer_recordings_test.cc.
#include "runtime/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/runtime/formats/gguf_writer.h"

namespace quern::testing {
namespace {

using ::testing::HasSubstr;

Result<std::unique_ptr<Tokenizer>> Load(const GgufWriter& writer) {
  const auto bytes = writer.Bytes();
  auto file = GgufFile::Parse(AsBytes(bytes), "t.gguf");
  if (!file) return std::move(file).error();
  return Tokenizer::FromGguf(**file);
}

GgufWriter SentencePiece(const std::string& last_token, int32_t kind) {
  GgufWriter writer;
  writer.String("tokenizer.ggml.model", "llama")
      .Strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "a", last_token})
      .Ints("tokenizer.ggml.token_type", {2, 3, 3, 1, kind})
      .Floats("tokenizer.ggml.scores", {0, 0, 0, -1, -2});
  return writer;
}

GgufWriter ByteLevel() {
  GgufWriter writer;
  writer.String("tokenizer.ggml.model", "gpt2")
      .Strings("tokenizer.ggml.tokens", {"a", "b", "ab"})
      .Strings("tokenizer.ggml.merges", {"a b"});
  return writer;
}

// Half of an e with an acute accent: taken out of the text, it would leave the other half behind.
TEST(Tokenizer, ASpecialTokenThatIsNoWholeCharacterIsRefused) {
  for (const int32_t kind : {2, 3, 4}) {
    const auto tokenizer = Load(SentencePiece("\xc3", kind));
    ASSERT_FALSE(tokenizer) << kind;
    EXPECT_EQ(tokenizer.error().code, ErrorCode::kDataLoss);
    EXPECT_THAT(tokenizer.error().message,
                HasSubstr("t.gguf: tokenizer.ggml.tokens[4] is '\\xc3'"));
  }
  EXPECT_TRUE(Load(SentencePiece("\xc3\xa9", 4)));
  EXPECT_TRUE(Load(SentencePiece("\xc3", 1))) << "a piece of a character may be an ordinary token";
}

TEST(Tokenizer, AFileThatDoesNotSayHowItCutsWordsIsRefused) {
  auto tokenizer = Load(ByteLevel());
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(tokenizer.error().message, HasSubstr("t.gguf: tokenizer.ggml.pre is missing"));
  tokenizer = Load(ByteLevel().String("tokenizer.ggml.pre", "default"));
  ASSERT_FALSE(tokenizer);
  EXPECT_THAT(tokenizer.error().message, HasSubstr("tokenizer.ggml.pre is 'default'"));
  tokenizer = Load(ByteLevel().String("tokenizer.ggml.pre", "falcon"));
  ASSERT_FALSE(tokenizer);
  EXPECT_THAT(tokenizer.error().message, HasSubstr("tokenizer.ggml.pre is 'falcon'"));
  EXPECT_TRUE(Load(ByteLevel().String("tokenizer.ggml.pre", "gpt-2")));
}

}  // namespace
}  // namespace quern::testing
