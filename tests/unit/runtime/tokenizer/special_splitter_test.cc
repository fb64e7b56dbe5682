#include "runtime/tokenizer/special_splitter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/runtime/formats/gguf_writer.h"

namespace quern {
namespace {

using quern::testing::AsBytes;
using quern::testing::GgufWriter;
using ::testing::ElementsAre;

constexpr int kNormal = 1, kControl = 3, kUser = 4;

class SpecialSplitterTest : public ::testing::Test {
 protected:
  void Load(const std::vector<std::pair<std::string, int>>& tokens) {
    std::vector<std::string> texts;
    std::vector<int32_t> kinds;
    for (const auto& [text, kind] : tokens) {
      texts.push_back(text);
      kinds.push_back(kind);
    }
    const auto bytes = GgufWriter()
                           .Strings("tokenizer.ggml.tokens", texts)
                           .Ints("tokenizer.ggml.token_type", kinds)
                           .Bytes();
    auto file = GgufFile::Parse(AsBytes(bytes), "test.gguf");
    ASSERT_TRUE(file.ok());
    auto vocabulary = Vocabulary::FromGguf(**file, {});
    ASSERT_TRUE(vocabulary.ok()) << vocabulary.error().message;
    vocabulary_ = std::make_unique<Vocabulary>(std::move(vocabulary).value());
    splitter_ = std::make_unique<SpecialSplitter>(*vocabulary_);
  }

  // "text" for text, "#3" for a token.
  std::vector<std::string> Split(std::string_view text, bool parse_special) {
    std::vector<std::string> out;
    for (const Fragment& fragment : splitter_->Split(text, parse_special)) {
      out.push_back(fragment.token < 0 ? std::string(fragment.text)
                                       : "#" + std::to_string(fragment.token));
    }
    return out;
  }

  std::unique_ptr<Vocabulary> vocabulary_;
  std::unique_ptr<SpecialSplitter> splitter_;
};

TEST_F(SpecialSplitterTest, ControlTokensAreTextUnlessAskedFor) {
  Load({{"x", kNormal}, {"<end>", kControl}, {"<tab>", kUser}});
  EXPECT_THAT(Split("a<end>b<tab>c", false), ElementsAre("a<end>b", "#2", "c"));
  EXPECT_THAT(Split("a<end>b<tab>c", true), ElementsAre("a", "#1", "b", "#2", "c"));
  EXPECT_THAT(Split("<end><end>", true), ElementsAre("#1", "#1"));
  EXPECT_THAT(Split("<en<end>d>", true), ElementsAre("<en", "#1", "d>"));
  EXPECT_THAT(Split("", true), ElementsAre());
  EXPECT_THAT(Split("x", true), ElementsAre("x"));
}

TEST_F(SpecialSplitterTest, RunsAreCutIntoTheLongestTokens) {
  Load({{"\n\n", kUser}, {"\n\n\n", kUser}, {"  ", kUser}});
  EXPECT_THAT(Split(std::string(7, '\n'), false), ElementsAre("#1", "#1", "\n"));
  EXPECT_THAT(Split(std::string(8, '\n'), false), ElementsAre("#1", "#1", "#0"));
  EXPECT_THAT(Split("a   b", false), ElementsAre("a", "#2", " b"));
}

TEST_F(SpecialSplitterTest, TheLongestTokenWinsWhereverItIs) {
  Load({{"ab", kUser}, {"bcd", kUser}, {"defg", kUser}});
  EXPECT_THAT(Split("abcd", false), ElementsAre("a", "#1"));
  EXPECT_THAT(Split("abcdefg", false), ElementsAre("#0", "c", "#2"))
      << "defg first, then bcd has no room, then ab";
}

}  // namespace
}  // namespace quern
