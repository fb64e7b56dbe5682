#include "runtime/gateway/usage.h"

#include <gtest/gtest.h>

namespace quern::gateway {
namespace {

std::optional<Usage> UsageOf(std::string_view answer, size_t piece) {
  UsageTail tail;
  for (size_t at = 0; at < answer.size(); at += piece) tail.Feed(answer.substr(at, piece));
  return tail.Find();
}

TEST(UsageTail, OfABodyAndOfAStream) {
  const std::string body =
      R"({"choices":[{"text":"a \"usage\": {\"prompt_tokens\": 9}"}],"usage": {"prompt_tokens":31,)"
      R"("completion_tokens":5,"prompt_tokens_details":{"cached_tokens":0},"total_tokens":36}})";
  const std::string stream =
      "data: {\"choices\":[{\"delta\":{}}],\"usage\":null}\n\n"
      "data: {\"choices\":[],\"usage\":{\"completion_tokens\":5,\"prompt_tokens\":31}}\n\n"
      "data: [DONE]\n\n";
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{100'000}}) {
    EXPECT_EQ(UsageOf(body, piece), (Usage{31, 5}));
    EXPECT_EQ(UsageOf(stream, piece), (Usage{31, 5}));
    EXPECT_EQ(UsageOf(std::string(100'000, 'x') + body, piece), (Usage{31, 5}));
  }
}

TEST(UsageTail, OfResponsesAndEmbeddings) {
  EXPECT_EQ(UsageOf(R"({"usage":{"input_tokens":3,"output_tokens":4}})", 5), (Usage{3, 4}));
  EXPECT_EQ(UsageOf(R"({"data":[],"usage":{"prompt_tokens":3,"total_tokens":3}})", 5),
            (Usage{3, 0}));
}

TEST(UsageTail, NothingWhereThereIsNone) {
  for (const std::string_view text :
       {"", "{}", R"({"usage":null})", R"({"usage":{"prompt_tokens":-1}})",
        R"({"usage":{"prompt_tokens":1e9}})", R"({"usage":{"prompt_tokens":99999999999}})",
        R"({"usage":{"prompt_tokens":1)", R"("usage")", R"({"content":"usage"})"}) {
    EXPECT_FALSE(UsageOf(text, 3)) << text;
  }
  // Too far from the end.
  EXPECT_FALSE(UsageOf(R"({"usage":{"prompt_tokens":1}})" + std::string(20'000, ' '), 64));
}

TEST(TokenEstimator, LearnsAndForgets) {
  TokenEstimator estimator;
  EXPECT_DOUBLE_EQ(estimator.Estimate(1000), 250);
  for (int i = 0; i < 1000; ++i) estimator.Learn(1000, 500);
  EXPECT_NEAR(estimator.tokens_per_byte(), 0.5, 0.001);
  for (int i = 0; i < 1000; ++i) estimator.Learn(1000, 100);
  EXPECT_NEAR(estimator.tokens_per_byte(), 0.1, 0.001);
}

TEST(TokenEstimator, NoAnswerLeadsItFarAstray) {
  TokenEstimator estimator;
  estimator.Learn(0, 1'000'000);
  EXPECT_DOUBLE_EQ(estimator.tokens_per_byte(), 0.25);
  for (int i = 0; i < 1000; ++i) estimator.Learn(10, 1'000'000'000);
  EXPECT_LE(estimator.tokens_per_byte(), 2);
  for (int i = 0; i < 10'000; ++i) estimator.Learn(1000, 0);
  EXPECT_GT(estimator.tokens_per_byte(), 0);
}

}  // namespace
}  // namespace quern::gateway
