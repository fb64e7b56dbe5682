#include "runtime/engine/prompt_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/sampling/logprobs.h"
#include "tests/unit/runtime/engine/step_loop_fixture.h"

namespace quern {
namespace {

constexpr int32_t kBlock = 4;

std::vector<TokenId> Prompt(int32_t tokens, TokenId seed = 1) {
  std::vector<TokenId> prompt;
  for (int32_t i = 0; i < tokens; ++i) prompt.push_back((seed * 37 + i * 11) % 250);
  return prompt;
}

class PromptReaderTest : public StepLoopTest {
 protected:
  void OpenWith(int32_t num_blocks, int32_t max_batch_tokens = 64) {
    EngineOptions options;
    options.kv_block_tokens = kBlock;
    options.max_sequences = 8;
    options.max_batch_tokens = max_batch_tokens;
    Open(num_blocks, options);
  }

  // What a model alone says of `prompt`, all in one step.
  static void ExpectPromptLogprobs(const std::vector<TokenId>& prompt, size_t top,
                                   const std::vector<GeneratedLogprobs>& got) {
    ASSERT_EQ(got.size(), prompt.size());
    HashModel model;
    const auto tokens = static_cast<int32_t>(prompt.size());
    ASSERT_TRUE(model.AllocateKv({.block_tokens = tokens, .num_blocks = 1}).ok());
    std::vector<int32_t> positions, rows;
    for (int32_t i = 0; i < tokens; ++i) positions.push_back(i);
    const std::vector<int32_t> blocks = {0};
    const ForwardBatch::Sequence sequence{0, tokens, tokens, blocks};
    ASSERT_TRUE(model.Forward({prompt, positions, {&sequence, 1}, {}}, {}).ok());
    std::vector<float> logits(HashModel::kVocabSize);
    LogprobReader reader;
    EXPECT_FALSE(got[0].predicted);
    EXPECT_EQ(got[0].token.token, prompt[0]);
    for (size_t i = 1; i < prompt.size(); ++i) {
      const auto row = static_cast<int32_t>(i - 1);
      EXPECT_TRUE(model.ReadLogits({&row, 1}, logits).ok());
      ASSERT_TRUE(reader.Measure(logits).ok());
      EXPECT_TRUE(got[i].predicted);
      EXPECT_EQ(got[i].token.token, prompt[i]);
      EXPECT_EQ(got[i].token.logprob, reader.Logprob(logits[static_cast<size_t>(prompt[i])])) << i;
      const auto likeliest = reader.Top(logits, top);
      ASSERT_EQ(got[i].top.size(), top);
      for (size_t k = 0; k < top; ++k) EXPECT_EQ(got[i].top[k].token, likeliest[k].token);
    }
  }

  // ReadHidden of HashModel for each token of `prompt`.
  static std::vector<std::vector<float>> Hidden(const std::vector<TokenId>& prompt) {
    HashModel model;
    const auto tokens = static_cast<int32_t>(prompt.size());
    EXPECT_TRUE(model.AllocateKv({.block_tokens = tokens, .num_blocks = 1}).ok());
    std::vector<int32_t> positions;
    for (int32_t i = 0; i < tokens; ++i) positions.push_back(i);
    const std::vector<int32_t> blocks = {0};
    const ForwardBatch::Sequence sequence{0, tokens, tokens, blocks};
    EXPECT_TRUE(model.Forward({prompt, positions, {&sequence, 1}, {}}, {}).ok());
    std::vector<std::vector<float>> hidden;
    for (int32_t i = 0; i < tokens; ++i) {
      hidden.emplace_back(HashModel::kWidth);
      EXPECT_TRUE(model.ReadHidden({&i, 1}, hidden.back()).ok());
    }
    return hidden;
  }
};

TEST_F(PromptReaderTest, APromptsLogprobsAreTheModelsHoweverItIsCutIntoChunks) {
  for (const int32_t chunk : {8, 17, 64}) {
    OpenWith(40, chunk);
    heard_.clear();
    auto request = Greedy(Prompt(45), 3);
    request.prompt_logprobs = 5;
    const RequestId id = Add(std::move(request));
    RunToTheEnd();
    SCOPED_TRACE(chunk);
    ExpectPromptLogprobs(Prompt(45), 5, heard_[id].prompt_logprobs);
    EXPECT_EQ(heard_[id].tokens, Expected(Prompt(45), 3));
    EXPECT_TRUE(heard_[id].logprobs.empty()) << "those were not asked for";
  }
}

TEST_F(PromptReaderTest, NothingComesFromThePrefixCacheButOthersFindWhatItLeaves) {
  OpenWith(60);
  const RequestId before = Add(Greedy(Prompt(40), 1));
  RunToTheEnd();
  auto request = Greedy(Prompt(40), 0);
  request.prompt_logprobs = 0;
  const RequestId id = Add(std::move(request));
  RunToTheEnd();
  ExpectPromptLogprobs(Prompt(40), 0, heard_[id].prompt_logprobs);
  EXPECT_EQ(heard_[id].cached_tokens, 0);
  EXPECT_EQ(loop_->Stats().prefix_queries_total, 40u) << "it was not looked up";
  const RequestId after = Add(Greedy(Prompt(40), 1));
  RunToTheEnd();
  EXPECT_EQ(heard_[after].cached_tokens, 36);
  EXPECT_EQ(heard_[after].tokens, heard_[before].tokens);
}

TEST_F(PromptReaderTest, WithoutTokensToGenerateARequestEndsWithItsPrompt) {
  OpenWith(20, 8);
  const RequestId id = Add(Greedy(Prompt(30), 0));
  RunToTheEnd();
  EXPECT_EQ(heard_[id].finish, FinishReason::kLength);
  EXPECT_TRUE(heard_[id].tokens.empty());
  EXPECT_EQ(heard_[id].prompt_tokens, 30);
  EXPECT_EQ(heard_[id].completion_tokens, 0);
  EXPECT_EQ(loop_->Stats().prompt_tokens_total, 30u);
  EXPECT_TRUE(observer_.first_tokens.empty()) << "there was none";
  EXPECT_EQ(observer_.finished.size(), 1u);
}

TEST_F(PromptReaderTest, TheLastTokensHiddenStateIsTheEmbedding) {
  for (const int32_t chunk : {8, 64}) {
    OpenWith(40, chunk);
    heard_.clear();
    for (int turn = 0; turn < 2; ++turn) {
      auto request = Greedy(Prompt(40), 0);
      request.pooling = Pooling::kLast;
      const RequestId id = Add(std::move(request));
      RunToTheEnd();
      EXPECT_EQ(heard_[id].embedding, Hidden(Prompt(40)).back());
      EXPECT_EQ(heard_[id].cached_tokens, turn == 0 ? 0 : 36) << "only the last one is needed";
    }
  }
}

TEST_F(PromptReaderTest, AMeanIsOverAllTokensWhateverIsCachedAndHoweverTheyAreCut) {
  for (const int32_t chunk : {8, 64}) {
    OpenWith(40, chunk);
    heard_.clear();
    std::vector<float> mean(HashModel::kWidth);
    for (const auto& hidden : Hidden(Prompt(45))) {
      for (size_t i = 0; i < mean.size(); ++i) mean[i] += hidden[i] / 45;
    }
    for (int turn = 0; turn < 2; ++turn) {
      auto request = Greedy(Prompt(45), 0);
      request.pooling = Pooling::kMean;
      const RequestId id = Add(std::move(request));
      RunToTheEnd();
      ASSERT_EQ(heard_[id].embedding.size(), mean.size());
      for (size_t i = 0; i < mean.size(); ++i) {
        EXPECT_NEAR(heard_[id].embedding[i], mean[i], 1e-3f * std::abs(mean[i])) << i;
      }
    }
  }
}

TEST_F(PromptReaderTest, AfterAPreemptionNoTokenIsToldTwice) {
  // Six that generate until the cache is too small for all of them; those that came last are sent
  // back, some within their prompts.
  OpenWith(40, 256);  // 16 tokens a step, for each of them costs 16 here
  std::map<RequestId, std::vector<TokenId>> prompts;
  for (TokenId i = 0; i < 6; ++i) {
    auto request = Greedy(Prompt(21, i), 40);
    request.ignore_eos = true;
    request.prompt_logprobs = 2;
    const RequestId id = Add(std::move(request));
    prompts[id] = Prompt(21, i);
  }
  RunToTheEnd();
  EXPECT_GT(loop_->Stats().preemptions_kv_full_total, 0u);
  for (const auto& [id, prompt] : prompts) {
    ExpectPromptLogprobs(prompt, 2, heard_[id].prompt_logprobs);
  }
}

TEST_F(PromptReaderTest, ALogitThatIsNoNumberEndsTheRequestAndLeavesTheOthers) {
  OpenWith(40);
  model_->poison = 249;
  auto bad = Greedy({3, 4, 249, 5, 6}, 4);
  bad.prompt_logprobs = 0;
  auto good = Greedy(Prompt(9), 4);
  good.prompt_logprobs = 0;
  const RequestId first = Add(std::move(bad));
  const RequestId second = Add(std::move(good));
  const RequestId third = Add(Greedy(Prompt(9, 2), 4));
  RunToTheEnd();
  EXPECT_EQ(heard_[first].finish, FinishReason::kError);
  ExpectPromptLogprobs(Prompt(9), 0, heard_[second].prompt_logprobs);
  EXPECT_EQ(heard_[second].tokens, Expected(Prompt(9), 4));
  EXPECT_EQ(heard_[third].tokens, Expected(Prompt(9, 2), 4));
}

TEST(CostOfRow, IsWhatTheHeadAddsToTheRest) {
  ModelInfo gemma{.vocab_size = 262'144, .width = 640, .parameters = 268'000'000};
  EXPECT_EQ(PromptReader::CostOfRow(gemma), 3);
  ModelInfo large{.vocab_size = 128'000, .width = 8'192, .parameters = 70'000'000'000};
  EXPECT_EQ(PromptReader::CostOfRow(large), 2);
}

}  // namespace
}  // namespace quern
