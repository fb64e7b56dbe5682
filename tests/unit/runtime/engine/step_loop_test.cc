#include <gtest/gtest.h>

#include <array>
#include <random>

#include "tests/unit/runtime/engine/step_loop_fixture.h"

namespace quern {
namespace {

TEST_F(StepLoopTest, GeneratesWhatTheModelSaysTokenForToken) {
  Open(64, {});
  const RequestId id = Add(Greedy({1, 2, 3}, 40));
  RunToTheEnd();
  const auto expected = Expected({1, 2, 3}, 40);
  EXPECT_EQ(heard_[id].tokens, expected);
  EXPECT_EQ(heard_[id].prompt_tokens, 3);
  EXPECT_EQ(heard_[id].completion_tokens, static_cast<int32_t>(expected.size()));
}

TEST_F(StepLoopTest, APromptPrefilledInChunksGivesTheSameAsInOneStep) {
  std::vector<TokenId> prompt;
  for (int i = 0; i < 200; ++i) prompt.push_back(i % 250);
  for (const int32_t budget : {4, 7, 16, 512}) {
    Open(64, {.max_sequences = 4, .max_batch_tokens = budget});
    const RequestId id = Add(Greedy(prompt, 10));
    RunToTheEnd();
    EXPECT_EQ(heard_[id].tokens, Expected(prompt, 10)) << budget;
  }
}

TEST_F(StepLoopTest, EndsAtMaxTokensWithLength) {
  Open(64, {}, Script({'a', 'b', 'c', 'd'}));
  const RequestId id = Add(Greedy({7, 0}, 3));
  RunToTheEnd();
  EXPECT_EQ(heard_[id].text, "abc");
  EXPECT_EQ(heard_[id].finish, FinishReason::kLength);
  EXPECT_EQ(heard_[id].deltas, 3);
}

TEST_F(StepLoopTest, EndsAtTheEndTokenWithStopAndWithoutItsText) {
  Open(64, {}, Script({'a', 'b', ByteTokenizer::kEnd, 'c'}));
  const RequestId id = Add(Greedy({0}, 10));
  RunToTheEnd();
  EXPECT_EQ(heard_[id].text, "ab");
  EXPECT_EQ(heard_[id].finish, FinishReason::kStop);
  EXPECT_EQ(heard_[id].completion_tokens, 3) << "the end token was generated too";
}

TEST_F(StepLoopTest, GoesOnPastTheEndTokenWhenAskedTo) {
  Open(64, {}, Script({'a', ByteTokenizer::kEnd, 'c', 'd'}));
  GenerationRequest request = Greedy({0}, 4);
  request.ignore_eos = true;
  const RequestId id = Add(std::move(request));
  RunToTheEnd();
  EXPECT_EQ(heard_[id].text, "acd");
  EXPECT_EQ(heard_[id].finish, FinishReason::kLength);
}

TEST_F(StepLoopTest, EndsBeforeAStopStringThatSpansTokens) {
  Open(64, {}, Script({'a', 260, 261, 'z'}));  // "a" "xEN" "D. " "z"
  GenerationRequest request = Greedy({0}, 10);
  request.stop = {"END."};
  const RequestId id = Add(std::move(request));
  RunToTheEnd();
  EXPECT_EQ(heard_[id].text, "ax");
  EXPECT_EQ(heard_[id].finish, FinishReason::kStop);
  EXPECT_EQ(heard_[id].completion_tokens, 3);
}

TEST_F(StepLoopTest, TextThatOnlyBeganAStopStringIsGivenOutAtTheEnd) {
  Open(64, {}, Script({'a', 260, 'q', 260}));
  GenerationRequest request = Greedy({0}, 4);
  request.stop = {"END."};
  const RequestId id = Add(std::move(request));
  RunToTheEnd();
  EXPECT_EQ(heard_[id].text, "axENqxEN");
  EXPECT_EQ(heard_[id].finish, FinishReason::kLength);
}

TEST_F(StepLoopTest, TextIsValidUtf8InEveryDelta) {
  Open(64, {}, Script({0xE2, 0x82, 0xAC, 'x', 0xE2}));
  const RequestId id = Add(Greedy({0}, 5));
  for (const char* expected : {"", "", "\xE2\x82\xAC", "\xE2\x82\xACx"}) {
    Step();
    EXPECT_EQ(heard_[id].text, expected);
  }
  RunToTheEnd();
  EXPECT_EQ(heard_[id].text, "\xE2\x82\xACx\xEF\xBF\xBD");
}

TEST_F(StepLoopTest, ACancelledRequestEndsAtOnceAndItsBlocksAreFree) {
  Open(64, {.max_sequences = 1}, Script({}));
  const RequestId running = Add(Greedy({1, 2, 0}, 100));
  const RequestId waiting = Add(Greedy({1, 2, 0}, 100));
  Step();
  EXPECT_EQ(loop_->Stats().running, 1);
  EXPECT_EQ(loop_->Stats().waiting, 1);
  EXPECT_EQ(loop_->Stats().kv_blocks_used, 1);
  loop_->Cancel(running);
  loop_->Cancel(waiting);
  loop_->Cancel(waiting);
  loop_->Cancel(999);
  EXPECT_EQ(loop_->Stats().kv_blocks_used, 0);
  EXPECT_FALSE(loop_->HasWork());
  Deliver();
  EXPECT_EQ(heard_[running].finish, FinishReason::kCancelled);
  EXPECT_EQ(heard_[running].completion_tokens, 1);
  EXPECT_EQ(heard_[waiting].finish, FinishReason::kCancelled);
}

TEST_F(StepLoopTest, AForwardErrorEndsTheRequestsOfThatStepAndNoOthers) {
  Open(64, {.max_sequences = 2}, Script({}));
  bool broken = false;
  model_->on_forward = [&](const ForwardBatch&) -> Status {
    if (!broken) return {};
    broken = false;
    // The code that a format's own failures have: not the requests' fault all the same.
    return MakeError(ErrorCode::kResourceExhausted, "the device fell off the bus");
  };
  const RequestId a = Add(Greedy({0}, 5));
  const RequestId b = Add(Greedy({1, 0}, 5));
  const RequestId c = Add(Greedy({2, 0}, 5));
  Step();
  broken = true;
  RunToTheEnd();
  for (const RequestId id : {a, b}) {
    EXPECT_EQ(heard_[id].finish, FinishReason::kError);
    EXPECT_EQ(heard_[id].error, "the device fell off the bus");
  }
  EXPECT_EQ(heard_[c].finish, FinishReason::kLength);
}

TEST_F(StepLoopTest, LogitsThatAreNotNumbersEndTheirRequestAlone) {
  Open(64, {});
  model_->poison = 123;
  const RequestId bad = Add(Greedy({1, 123, 3}, 5));
  const RequestId good = Add(Greedy({1, 2, 3}, 5));
  RunToTheEnd();
  EXPECT_EQ(heard_[bad].finish, FinishReason::kError);
  EXPECT_NE(heard_[bad].error.find("token 17 of 300"), std::string::npos) << heard_[bad].error;
  EXPECT_EQ(heard_[good].tokens, Expected({1, 2, 3}, 5));
}

TEST_F(StepLoopTest, PreemptedRequestsGoOnWhereTheyWere) {
  Open(6, {.max_sequences = 4, .kv_block_tokens = 4});
  std::vector<std::vector<TokenId>> prompts = {{1, 2, 3}, {4, 5, 6, 7}, {8, 9}};
  std::vector<RequestId> ids;
  for (const auto& prompt : prompts) ids.push_back(Add(Greedy(prompt, 18)));
  RunToTheEnd();
  for (size_t i = 0; i < ids.size(); ++i)
    EXPECT_EQ(heard_[ids[i]].tokens, Expected(prompts[i], 18));
  EXPECT_EQ(loop_->Stats().prompt_tokens_total, 9u)
      << "recomputed prompt tokens are not counted again";
  // Every token that ran more than once was counted as preempted.
  int64_t ran = 0, needed = 0;
  for (const auto& step : observer_.steps) ran += step.prefill_tokens + step.decode_tokens;
  for (size_t i = 0; i < ids.size(); ++i)
    needed += static_cast<int64_t>(prompts[i].size() + heard_[ids[i]].tokens.size()) - 1;
  EXPECT_GT(loop_->Stats().preemptions_kv_full_total, 0u);
  EXPECT_EQ(loop_->Stats().preempted_tokens_total, static_cast<uint64_t>(ran - needed));
}

TEST_F(StepLoopTest, TellsTheObserverTimesAsTheClockHasThem) {
  Open(64, {.max_sequences = 1}, Script({}));
  model_->on_forward = [this](const ForwardBatch&) -> Status {
    clock_.Advance(std::chrono::milliseconds(250));
    return {};
  };
  Add(Greedy({1, 0}, 2));
  Add(Greedy({0}, 1));
  clock_.Advance(std::chrono::seconds(1));
  RunToTheEnd();
  ASSERT_EQ(observer_.first_tokens.size(), 2u);
  EXPECT_EQ(observer_.first_tokens[0], std::make_pair(1.25, 1.0));
  EXPECT_EQ(observer_.first_tokens[1], std::make_pair(1.75, 1.5));
  EXPECT_EQ(observer_.gaps, std::vector<double>{0.25});
  ASSERT_EQ(observer_.steps.size(), 3u);
  EXPECT_EQ(observer_.steps[0].prefill_tokens, 2);
  EXPECT_EQ(observer_.steps[0].seconds, 0.25);
  EXPECT_EQ(observer_.steps[1].decode_tokens, 1);
  ASSERT_EQ(observer_.finished.size(), 2u);
  EXPECT_EQ(observer_.finished[0].reason, FinishReason::kLength);
  EXPECT_EQ(observer_.finished[0].since_submit.count(), 1.5);
  EXPECT_EQ(observer_.finished[0].prompt_tokens, 2);
  EXPECT_EQ(observer_.finished[0].completion_tokens, 2);
}

TEST_F(StepLoopTest, CountsPromptAndGeneratedTokens) {
  Open(64, {.max_sequences = 4, .max_batch_tokens = 8}, Script({}));
  std::vector<TokenId> prompt(20, 3);
  prompt.back() = 0;
  Add(Greedy(prompt, 5));
  Step();
  EXPECT_EQ(loop_->Stats().prompt_tokens_total, 8u);
  EXPECT_EQ(loop_->Stats().generated_tokens_total, 0u);
  RunToTheEnd();
  EXPECT_EQ(loop_->Stats().prompt_tokens_total, 20u);
  EXPECT_EQ(loop_->Stats().generated_tokens_total, 5u);
}

std::vector<TokenId> Counting(TokenId from, size_t count) {
  std::vector<TokenId> tokens;
  while (tokens.size() < count) tokens.push_back(from + static_cast<TokenId>(tokens.size()));
  return tokens;
}

TEST_F(StepLoopTest, ThePromptOfTheNextTurnIsComputedOnlyFromWhereItIsNew) {
  Open(64, {.kv_block_tokens = 4});
  std::vector<TokenId> talk = Counting(10, 8);
  GenerationRequest first = Greedy(talk, 9);
  first.ignore_eos = true;
  const RequestId a = Add(first);
  RunToTheEnd();
  EXPECT_EQ(heard_[a].cached_tokens, 0);
  // Of the 17 tokens the last one was sampled but never run: four blocks are full.
  talk.insert(talk.end(), heard_[a].tokens.begin(), heard_[a].tokens.end());
  talk.push_back(5);
  observer_ = {};
  const RequestId b = Add(Greedy(talk, 6));
  RunToTheEnd();
  EXPECT_EQ(heard_[b].cached_tokens, 16);
  EXPECT_EQ(observer_.steps[0].prefill_tokens, 2);
  EXPECT_EQ(heard_[b].tokens, Expected(talk, 6));
  EXPECT_EQ(loop_->Stats().prompt_tokens_total, 8u + 18u) << "found ones count too";
  EXPECT_EQ(loop_->Stats().prefix_queries_total, 8u + 18u);
  EXPECT_EQ(loop_->Stats().prefix_hits_total, 16u);
}

TEST_F(StepLoopTest, OfAPromptThatIsCachedWholeTheLastBlockRunsAgain) {
  Open(64, {.kv_block_tokens = 4});
  Add(Greedy(Counting(10, 8), 3));
  RunToTheEnd();
  const RequestId again = Add(Greedy(Counting(10, 8), 3));
  RunToTheEnd();
  EXPECT_EQ(heard_[again].cached_tokens, 4);
  EXPECT_EQ(heard_[again].tokens, Expected(Counting(10, 8), 3));
}

TEST_F(StepLoopTest, AnotherSaltFindsNothingAndNeitherDoesAnyoneWithTheCacheOff) {
  Open(64, {.kv_block_tokens = 4});
  GenerationRequest request = Greedy(Counting(10, 30), 3);
  request.cache_salt = "mine";
  Add(request);
  RunToTheEnd();
  const auto cached = [&](const std::string& salt) {
    request.cache_salt = salt;
    const RequestId id = Add(request);
    RunToTheEnd();
    EXPECT_EQ(heard_[id].tokens, Expected(request.prompt, 3));
    return heard_[id].cached_tokens;
  };
  EXPECT_EQ(cached(""), 0);
  EXPECT_EQ(cached("mine2"), 0);
  EXPECT_EQ(cached("mine"), 28);
  // Another tenant finds nothing, not even with the first one's name and salt in its own.
  request.tenant = std::make_shared<const Tenant>(Tenant{.name = "other"});
  EXPECT_EQ(cached("mine"), 0);
  EXPECT_EQ(cached("0:mine"), 0);
  EXPECT_EQ(cached("mine"), 28);
  EXPECT_EQ(observer_.finished.back().cached_tokens, 28);
  EXPECT_EQ(observer_.finished.back().tenant, request.tenant);
  Open(64, {.kv_block_tokens = 4, .prefix_cache = false});
  EXPECT_EQ(cached("mine"), 0);
  EXPECT_EQ(cached("mine"), 0);
  EXPECT_EQ(loop_->Stats().prefix_queries_total, 0u);
}

// The promise of continuous batching: whatever joins, leaves and is preempted around it, a request
// gets the tokens that it would get alone.
class BatchVersusAlone : public StepLoopTest {
 protected:
  GenerationRequest RandomRequest(std::mt19937& random, int32_t capacity) {
    const auto below = [&](uint32_t n) { return static_cast<int32_t>(random() % n); };
    GenerationRequest request;
    request.prompt.resize(static_cast<size_t>(1 + below(40)));
    // Half of them begin like others.
    const int32_t alike = below(2) * below(40), from = below(3);
    for (TokenId& token : request.prompt) {
      const auto at = static_cast<int32_t>(&token - request.prompt.data());
      token = at < alike ? from + at : below(HashModel::kVocabSize);
    }
    if (below(4) == 0) request.cache_salt = "salt";
    request.tenant = tenants_[static_cast<size_t>(below(3))];
    request.max_tokens =
        std::min(1 + below(60), capacity - static_cast<int32_t>(request.prompt.size()));
    request.ignore_eos = below(2) == 0;
    request.sampling.seed = random();
    switch (below(4)) {
      case 0:
        request.sampling.temperature = 0;
        break;
      case 1:
        request.sampling = {.temperature = 1.3f, .seed = random()};
        break;
      case 2:
        request.sampling = {.temperature = 1.0f, .top_p = 0.8f, .seed = random()};
        break;
      default:
        request.sampling = {.temperature = 0.9f, .top_k = 30, .min_p = 0.01f, .seed = random()};
    }
    if (below(3) == 0) {
      request.sampling.frequency_penalty = 0.5f;
      request.sampling.repetition_penalty = 1.2f;
      request.sampling.logit_bias = {{below(HashModel::kVocabSize), 3.0f}};
      request.sampling.typical_p = below(2) == 0 ? 1.0f : 0.7f;
      request.min_tokens = below(static_cast<uint32_t>(request.max_tokens));
      if (below(2) == 0) request.top_logprobs = below(4);
    }
    return request;
  }

  const std::array<std::shared_ptr<const Tenant>, 3> tenants_ = {
      nullptr, std::make_shared<const Tenant>(Tenant{.name = "a", .weight = 2}),
      std::make_shared<const Tenant>(Tenant{.name = "b", .priority = 1})};
};

TEST_F(BatchVersusAlone, RandomRequestsWithJoinsLeavesAndPreemptionsAgreeTokenForToken) {
  constexpr int32_t kBlocks = 40;
  const EngineOptions options{.max_sequences = 8, .max_batch_tokens = 24, .kv_block_tokens = 4};
  int64_t cancelled = 0, compared = 0;
  uint64_t recomputed = 0, hits = 0, fairness = 0;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    window_ = seed % 2 == 0 ? 5 : 0;  // of two blocks: no more than all sequences can own
    window_blocks_ =
        window_ > 0
            ? static_cast<int32_t>(WindowBlocksInUse(
                  1, options.kv_block_tokens, options.max_sequences, options.max_batch_tokens))
            : 0;
    std::mt19937 random(seed);
    observer_ = {};
    std::map<RequestId, GenerationRequest> requests;
    heard_.clear();
    Open(kBlocks, options);
    for (int i = 0; i < 60; ++i) {
      GenerationRequest request = RandomRequest(random, kBlocks * options.kv_block_tokens);
      const RequestId id = Add(request);
      requests.emplace(id, std::move(request));
      for (uint32_t steps = random() % 8; steps > 0 && loop_->HasWork(); --steps) Step();
      if (random() % 8 == 0) loop_->Cancel(id - random() % 4);
    }
    RunToTheEnd();
    const std::map<RequestId, Heard> batch = heard_;
    recomputed += loop_->Stats().preempted_tokens_total;
    hits += loop_->Stats().prefix_hits_total;
    fairness += loop_->Stats().preemptions_fairness_total;
    for (const auto& [id, request] : requests) {
      Open(kBlocks, options);
      const RequestId alone = Add(request);
      RunToTheEnd();
      const auto& mine = batch.at(id);
      std::vector<TokenId> expected = heard_[alone].tokens;
      if (mine.finish == FinishReason::kCancelled) {
        expected.resize(mine.tokens.size());
        ++cancelled;
      } else {
        EXPECT_EQ(mine.text, heard_[alone].text);
        EXPECT_EQ(mine.finish, heard_[alone].finish);
        ++compared;
      }
      ASSERT_EQ(mine.tokens, expected) << "request " << id;
    }
  }
  EXPECT_GT(recomputed, 1000u) << "too few preemptions for this test to mean something";
  EXPECT_GT(hits, 500u);
  EXPECT_GT(fairness, 20u);
  EXPECT_GT(compared, 800);
  EXPECT_GT(cancelled, 20);
}

}  // namespace
}  // namespace quern
