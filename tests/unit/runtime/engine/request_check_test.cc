#include "runtime/engine/request_check.h"

#include <gtest/gtest.h>

namespace quern {
namespace {

constexpr int32_t kVocab = 100;
constexpr int32_t kContext = 64;

GenerationRequest Valid() { return {.prompt = {1, 2, 3}, .max_tokens = 10}; }

std::string ErrorOf(const GenerationRequest& request) {
  const Status status = CheckRequest(request, kVocab, kContext);
  EXPECT_FALSE(status.ok());
  if (status.ok()) return {};
  EXPECT_EQ(status.error().code, ErrorCode::kInvalidArgument);
  return status.error().message;
}

TEST(CheckRequest, TakesARequestThatJustFitsTheContext) {
  GenerationRequest request = Valid();
  request.max_tokens = kContext - 3;
  EXPECT_TRUE(CheckRequest(request, kVocab, kContext).ok());
}

TEST(CheckRequest, SaysByHowMuchTheContextIsExceeded) {
  GenerationRequest request = Valid();
  request.max_tokens = kContext;
  EXPECT_EQ(ErrorOf(request),
            "the prompt has 3 tokens and max_tokens is 64: together 67, which is 3 more than the "
            "context of 64 "
            "tokens");
  request.max_tokens = INT32_MAX;
  EXPECT_NE(ErrorOf(request).find("2147483650"), std::string::npos) << "and does not overflow";
}

TEST(CheckRequest, RefusesAnEmptyPromptAndTooFewTokens) {
  GenerationRequest request = Valid();
  request.prompt.clear();
  ErrorOf(request);
  request = Valid();
  for (const int32_t bad : {-1, INT32_MIN}) {
    request.max_tokens = bad;
    EXPECT_NE(ErrorOf(request).find("max_tokens"), std::string::npos);
  }
}

TEST(CheckRequest, NamesATokenOutsideTheVocabulary) {
  GenerationRequest request = Valid();
  request.prompt = {1, 100, 3};
  EXPECT_EQ(ErrorOf(request), "token 1 of the prompt has id 100; the vocabulary has ids 0 to 99");
  request.prompt = {-1};
  ErrorOf(request);
}

TEST(CheckRequest, BoundsStopStrings) {
  GenerationRequest request = Valid();
  request.stop = {""};
  ErrorOf(request);
  request.stop = {std::string(kMaxStopBytes + 1, 'x')};
  ErrorOf(request);
  request.stop.assign(kMaxStopStrings + 1, "x");
  ErrorOf(request);
  request.stop = {"\x82\xAC"};
  ErrorOf(request);
  request.stop.assign(kMaxStopStrings, std::string(kMaxStopBytes, 'x'));
  EXPECT_TRUE(CheckRequest(request, kVocab, kContext).ok());
}

TEST(CheckRequest, ChecksTheSamplingParameters) {
  GenerationRequest request = Valid();
  request.sampling.top_p = 0;
  EXPECT_NE(ErrorOf(request).find("top_p"), std::string::npos);
  request = Valid();
  request.sampling.logit_bias = {{kVocab, 1.0f}};
  EXPECT_EQ(ErrorOf(request), "logit_bias names token 100; the vocabulary has ids 0 to 99");
  request.sampling.logit_bias = {{kVocab - 1, 1.0f}};
  request.min_tokens = 10;
  request.top_logprobs = kMaxTopLogprobs;
  EXPECT_TRUE(CheckRequest(request, kVocab, kContext).ok());
  request.min_tokens = 11;
  EXPECT_EQ(ErrorOf(request), "min_tokens is 11; it must be between 0 and max_tokens, which is 10");
  request.min_tokens = 0;
  request.top_logprobs = kMaxTopLogprobs + 1;
  EXPECT_EQ(ErrorOf(request), "top_logprobs is 21; it must be between 0 and 20");
}

}  // namespace
}  // namespace quern
