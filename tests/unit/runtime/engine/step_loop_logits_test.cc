// What the step loop makes of logits: which it asks for, what it holds back, log-probabilities.
#include <gtest/gtest.h>

#include "tests/unit/runtime/engine/step_loop_fixture.h"

namespace quern {
namespace {

std::vector<TokenId> TokensOf(const std::vector<GeneratedLogprobs>& logprobs) {
  std::vector<TokenId> tokens;
  for (const auto& entry : logprobs) tokens.push_back(entry.token.token);
  return tokens;
}

std::vector<int32_t> OffsetsOf(const std::vector<GeneratedLogprobs>& logprobs) {
  std::vector<int32_t> offsets;
  for (const auto& entry : logprobs) offsets.push_back(entry.text_offset);
  return offsets;
}

TEST_F(StepLoopTest, MinTokensHoldsTheEndTokenBackSoLongAndNoLonger) {
  Open(64, {},
       Script({ByteTokenizer::kEnd, ByteTokenizer::kEnd, ByteTokenizer::kEnd, ByteTokenizer::kEnd,
               'x'}));
  GenerationRequest request = Greedy({0}, 10);
  request.min_tokens = 3;
  const RequestId id = Add(std::move(request));
  RunToTheEnd();
  ASSERT_EQ(heard_[id].tokens.size(), 4u);
  for (size_t i = 0; i < 3; ++i) EXPECT_NE(heard_[id].tokens[i], ByteTokenizer::kEnd);
  EXPECT_EQ(heard_[id].tokens[3], ByteTokenizer::kEnd);
  EXPECT_EQ(heard_[id].finish, FinishReason::kStop);
}

TEST_F(StepLoopTest, AsksTheModelForNoMoreLogitsThanItLooksAt) {
  const auto rank_of = [&](const GenerationRequest& request) {
    Open(64, {});
    std::vector<int32_t> ranks;
    model_->on_forward = [&](const ForwardBatch& batch) -> Status {
      ranks.assign(batch.logit_ranks.begin(), batch.logit_ranks.end());
      return {};
    };
    Add(request);
    Step();
    EXPECT_EQ(ranks.size(), 1u);
    return ranks.empty() ? -1 : ranks[0];
  };
  const auto with = [](SamplingParams sampling) {
    GenerationRequest request = Greedy({1, 2, 3}, 4);
    request.sampling = std::move(sampling);
    return request;
  };
  EXPECT_EQ(rank_of(Greedy({1, 2, 3}, 4)), 1);
  EXPECT_EQ(rank_of(with({.temperature = 1, .top_k = 1})), 1);
  EXPECT_EQ(rank_of(with({.temperature = 1, .top_k = 40})), 40);
  EXPECT_EQ(rank_of(with({.temperature = 1, .top_p = 0.9f, .top_k = 40, .min_p = 0.1f})), 40);
  EXPECT_EQ(rank_of(with({.temperature = 1})), 0);
  EXPECT_EQ(rank_of(with({.temperature = 1, .top_p = 0.9f})), 0);
  EXPECT_EQ(rank_of(with({.temperature = 1, .min_p = 0.1f})), 0);
  EXPECT_EQ(rank_of(with({.temperature = 0, .logit_bias = {{7, 1.0f}}})), 0);
  EXPECT_EQ(rank_of(with({.temperature = 0, .presence_penalty = 1})), 0);
  GenerationRequest request = Greedy({1, 2, 3}, 4);
  request.top_logprobs = 0;
  EXPECT_EQ(rank_of(request), 0);
  request = Greedy({1, 2, 3}, 4);
  request.min_tokens = 2;
  EXPECT_EQ(rank_of(request), 0);
}

TEST_F(StepLoopTest, StopStringsThatMinTokensCompleteAreText) {
  Open(64, {}, Script({'a', 'b', 'a', 'b', 'z'}));
  GenerationRequest request = Greedy({0}, 10);
  request.stop = {"ab"};
  request.min_tokens = 2;
  const RequestId id = Add(request);
  request.stop = {"aba"};  // begun within them, completed after
  const RequestId across = Add(std::move(request));
  RunToTheEnd();
  EXPECT_EQ(heard_[id].text, "ab");
  EXPECT_EQ(heard_[id].completion_tokens, 4);
  EXPECT_EQ(heard_[across].text, "");
  EXPECT_EQ(heard_[across].completion_tokens, 3);
}

TEST_F(StepLoopTest, LogprobsAreTheModelsOwnWhateverBiasAndPenaltiesMakeOfThem) {
  Open(64, {}, Script({'a', 'b', 'c'}));
  GenerationRequest request = Greedy({0}, 3);
  request.top_logprobs = 2;
  const RequestId plain = Add(request);
  request.sampling.logit_bias = {{'q', 100.0f}};
  request.sampling.frequency_penalty = 2.0f;
  const RequestId forced = Add(request);
  request = Greedy({0}, 3);
  const RequestId without = Add(std::move(request));
  RunToTheEnd();
  EXPECT_EQ(heard_[plain].text, "abc");
  ASSERT_EQ(TokensOf(heard_[plain].logprobs), (std::vector<TokenId>{'a', 'b', 'c'}));
  EXPECT_EQ(OffsetsOf(heard_[plain].logprobs), (std::vector<int32_t>{0, 1, 2}));
  for (const auto& entry : heard_[plain].logprobs) {
    ASSERT_EQ(entry.top.size(), 2u);
    EXPECT_EQ(entry.top[0].token, entry.token.token);
    EXPECT_EQ(entry.top[0].logprob, entry.token.logprob);
    EXPECT_LT(entry.top[1].logprob, entry.top[0].logprob);
  }
  EXPECT_EQ(heard_[forced].text, "qqq");
  const auto& first = heard_[forced].logprobs.at(0);
  EXPECT_EQ(first.top[0].token, 'a') << "the model wanted to say a";
  EXPECT_EQ(first.top[0].logprob, heard_[plain].logprobs[0].top[0].logprob);
  EXPECT_LT(first.token.logprob, first.top[0].logprob - 2);
  EXPECT_TRUE(heard_[without].logprobs.empty());
}

TEST_F(StepLoopTest, LogprobsFollowTheTextThatStopStringsCutOrHoldBack) {
  Open(64, {}, Script({'a', 0xC3, 0xA9, 260, 261, 'z'}));  // "a" "e acute" "xEN" "D. " "z"
  GenerationRequest request = Greedy({0}, 10);
  request.top_logprobs = 0;
  request.stop = {"END."};
  const RequestId cut = Add(request);
  request.stop = {"ENDE"};  // held back for a while, then given out
  request.max_tokens = 5;
  const RequestId held = Add(request);
  RunToTheEnd();
  EXPECT_EQ(heard_[cut].text, "a\xC3\xA9x");
  EXPECT_EQ(TokensOf(heard_[cut].logprobs), (std::vector<TokenId>{'a', 0xC3, 0xA9, 260}))
      << "not of the token that is cut off whole";
  EXPECT_EQ(OffsetsOf(heard_[cut].logprobs), (std::vector<int32_t>{0, 1, 1, 2}));
  EXPECT_EQ(heard_[held].text, "a\xC3\xA9xEND. ");
  EXPECT_EQ(OffsetsOf(heard_[held].logprobs), (std::vector<int32_t>{0, 1, 1, 2, 5}));
  Open(64, {}, Script({'a', 0xC3, ByteTokenizer::kEnd}));
  request.stop.clear();
  const RequestId ended = Add(std::move(request));
  RunToTheEnd();
  EXPECT_EQ(TokensOf(heard_[ended].logprobs), (std::vector<TokenId>{'a', 0xC3}))
      << "half a character has its entry too, the end token has none";
}

}  // namespace
}  // namespace quern
