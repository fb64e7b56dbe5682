#include "runtime/server/echo.h"

#include <gtest/gtest.h>

#include "tests/unit/runtime/server/scripted_engine.h"

namespace quern::server {
namespace {

// "▁" is written as a space; the first one of a text is not its own (Llama 2).
class SpacedTokenizer : public ByteTokenizer {
 public:
  std::string Decode(std::span<const TokenId> ids, bool render_special) const override {
    const std::string text = ByteTokenizer::Decode(ids, render_special);
    return text.starts_with(' ') ? text.substr(1) : text;
  }
};

TEST(Echo, OffsetsCountCharactersAndBosStandsBeforeTheText) {
  const ByteTokenizer tokenizer;
  const std::string text = "a\xC3\xA9z";  // aéz
  const Echo echo =
      MakeEcho(std::vector<TokenId>{256, 'a', 0xC3, 0xA9, 'z'}, text, true, tokenizer);
  EXPECT_EQ(echo.text, text);
  EXPECT_EQ(echo.chars, 3);
  EXPECT_EQ(echo.offsets, (std::vector<int32_t>{0, 0, 1, 2, 2}));
  EXPECT_TRUE(MakeEcho(std::vector<TokenId>{256, 'a'}, "a", false, tokenizer).offsets.empty());
}

TEST(Echo, ABosThatTheTextNamesIsPartOfIt) {
  const ByteTokenizer tokenizer;
  EXPECT_EQ(MakeEcho(std::vector<TokenId>{256, 'a', 'b'}, "<s>ab", true, tokenizer).offsets,
            (std::vector<int32_t>{0, 3, 4}));
  EXPECT_EQ(MakeEcho(std::vector<TokenId>{256, 256, 'a'}, "<s>a", true, tokenizer).offsets,
            (std::vector<int32_t>{0, 0, 3}));
}

TEST(Echo, OfTokensTheTextIsAllThatTheySay) {
  const ByteTokenizer tokenizer;
  const Echo echo = MakeEcho(std::vector<TokenId>{256, 'a', 'b'}, std::nullopt, true, tokenizer);
  EXPECT_EQ(echo.text, "<s>ab");
  EXPECT_EQ(echo.offsets, (std::vector<int32_t>{0, 3, 4}));
}

TEST(Echo, ASpaceThatTheTokenizerAddedIsNotCounted) {
  const SpacedTokenizer tokenizer;
  const Echo echo = MakeEcho(std::vector<TokenId>{256, ' ', 'a', 'b'}, "ab", true, tokenizer);
  EXPECT_EQ(echo.offsets, (std::vector<int32_t>{0, 0, 0, 1}));
}

}  // namespace
}  // namespace quern::server
