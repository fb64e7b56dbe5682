#include "runtime/bench/prompts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace quern::bench {
namespace {

// A tokenizer that puts `before` tokens before the text, and makes of a word as many as `cost`
// says.
struct FakeTokenizer {
  int32_t before = 1;
  std::function<int32_t(std::string_view)> cost = [](std::string_view) { return 1; };
  int calls = 0;

  int32_t Count(const std::string& text) const {
    int32_t tokens = before;
    size_t at = 0;
    while (at <= text.size()) {
      const size_t end = std::min(text.find(' ', at), text.size());
      tokens += cost(std::string_view(text).substr(at, end - at));
      at = end + 1;
    }
    return tokens;
  }
  TokenCounter Counter() {
    return [this](const std::string& text) -> Result<int32_t> {
      ++calls;
      return Count(text);
    };
  }
};

PlannedRequest Wanted(int64_t index, int32_t tokens) {
  PlannedRequest request;
  request.index = index;
  request.prompt_tokens = tokens;
  return request;
}

size_t CommonWords(const std::string& a, const std::string& b) {
  const auto differ = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  return static_cast<size_t>(std::count(a.begin(), differ, ' '));
}

TEST(Prompts, HaveExactlyTheTokensWantedWhereTheServerCounts) {
  FakeTokenizer tokenizer;
  tokenizer.before = 30;  // a chat template
  tokenizer.cost = [](std::string_view word) { return word.size() > 6 ? 2 : 1; };
  const auto words = LearnWords(tokenizer.Counter());
  ASSERT_TRUE(words.ok());
  EXPECT_TRUE(words->exact);
  EXPECT_GT(words->words.size(), 200U);
  EXPECT_LT(tokenizer.calls, 200);
  const PromptMaker prompts(*words, {.seed = 5, .shared_prefix = 0});
  for (const int32_t tokens : {31, 32, 128, 4000}) {
    EXPECT_EQ(tokenizer.Count(prompts.Make(Wanted(tokens, tokens))), tokens);
  }
  EXPECT_EQ(prompts.least_tokens(), 31);
  EXPECT_EQ(tokenizer.Count(prompts.Make(Wanted(0, 3))), 31);  // never less than a word
}

TEST(Prompts, AreAboutAsLongWhereEveryWordIsSeveralTokens) {
  FakeTokenizer tokenizer;
  tokenizer.cost = [](std::string_view word) { return static_cast<int32_t>(word.size()); };
  const auto words = LearnWords(tokenizer.Counter());
  ASSERT_TRUE(words.ok());
  EXPECT_FALSE(words->exact);
  EXPECT_LE(tokenizer.calls, 3);  // no use in halving
  const PromptMaker prompts(*words, {});
  EXPECT_NEAR(tokenizer.Count(prompts.Make(Wanted(0, 2000))), 2000, 100);
}

TEST(Prompts, ATokenizerThatJoinsWordsIsFoundOut) {
  // Alone they are one token each; behind many others they are not.
  const TokenCounter joins = [](const std::string& text) -> Result<int32_t> {
    const auto spaces = static_cast<int32_t>(std::count(text.begin(), text.end(), ' '));
    return spaces == 200 ? 180 : spaces + 1;
  };
  const auto words = LearnWords(joins);
  ASSERT_TRUE(words.ok());
  EXPECT_FALSE(words->exact);
}

TEST(Prompts, CountsThatMakeNoSenseAndErrorsAreErrors) {
  const auto nothing = LearnWords([](const std::string&) -> Result<int32_t> { return 0; });
  EXPECT_EQ(nothing.error().code, ErrorCode::kUnsupported);
  const auto always = LearnWords([](const std::string&) -> Result<int32_t> { return 7; });
  EXPECT_EQ(always.error().code, ErrorCode::kUnsupported);
  const auto failed = LearnWords(
      [](const std::string&) -> Result<int32_t> { return MakeError(ErrorCode::kNotFound, "no"); });
  EXPECT_EQ(failed.error().code, ErrorCode::kNotFound);
}

TEST(Prompts, HaveNothingInCommonButTheirFirstWord) {
  const PromptMaker prompts(UnknownWordTokens(), {.seed = 1, .shared_prefix = 0});
  const PromptMaker others(UnknownWordTokens(), {.seed = 2, .shared_prefix = 0});
  std::set<std::string> seen;
  for (int64_t i = 0; i < 200; ++i) {
    const std::string text = prompts.Make(Wanted(i, 40));
    EXPECT_EQ(text, prompts.Make(Wanted(i, 40)));
    EXPECT_LE(CommonWords(text, others.Make(Wanted(i, 40))), 3U);
    EXPECT_LE(CommonWords(text, prompts.Make(Wanted(i + 1, 40))), 3U);
    seen.insert(text);
  }
  EXPECT_EQ(seen.size(), 200U);
}

TEST(Prompts, ShareThePrefixThatIsAskedFor) {
  const PromptMaker prompts(UnknownWordTokens(), {.seed = 1, .shared_prefix = 20});
  const std::string a = prompts.Make(Wanted(1, 40)), b = prompts.Make(Wanted(2, 60));
  EXPECT_EQ(CommonWords(a.substr(0, a.size() - 1), b), 20U);
  // All of a prompt that is shorter.
  EXPECT_TRUE(a.starts_with(prompts.Make(Wanted(3, 10)) + " "));
}

TEST(Prompts, WithTheSameBlocksOfATraceBeginAlike) {
  const std::vector<int64_t> first = {4, 9}, second = {4, 8};
  const PromptMaker prompts(UnknownWordTokens(), {.seed = 1, .shared_prefix = 0});
  PlannedRequest a = Wanted(1, 1000), b = Wanted(2, 1000), c = Wanted(3, 700);
  a.blocks = &first;
  b.blocks = &second;
  c.blocks = &first;
  EXPECT_NEAR(static_cast<double>(CommonWords(prompts.Make(a), prompts.Make(b))), 512, 3);
  EXPECT_TRUE(prompts.Make(a).starts_with(prompts.Make(c) + " "));
}

}  // namespace
}  // namespace quern::bench
