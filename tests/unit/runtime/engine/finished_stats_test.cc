// What the observer hears of requests that have ended.
#include <numeric>

#include "tests/unit/runtime/engine/step_loop_fixture.h"

namespace quern {
namespace {

class FinishedStatsTest : public StepLoopTest {
 protected:
  // Each forward pass takes a quarter of a second.
  void OpenSlow(EngineOptions options) {
    Open(64, options);
    model_->on_forward = [this](const ForwardBatch&) -> Status {
      clock_.Advance(std::chrono::milliseconds(250));
      return {};
    };
  }

  static GenerationRequest Of(int32_t prompt_tokens, int32_t max_tokens) {
    std::vector<TokenId> prompt(static_cast<size_t>(prompt_tokens));
    std::iota(prompt.begin(), prompt.end(), 10);
    GenerationRequest request = Greedy(std::move(prompt), max_tokens);
    request.ignore_eos = true;
    return request;
  }
};

TEST_F(FinishedStatsTest, TimesAreThoseOfTheFirstStepAndOfTheFirstAndTheLastToken) {
  OpenSlow({.max_sequences = 1, .max_batch_tokens = 8});
  Add(Of(20, 5));
  Add(Of(3, 1));
  clock_.Advance(std::chrono::seconds(7));
  RunToTheEnd();
  ASSERT_EQ(observer_.finished.size(), 2u);
  const FinishedStats& five = observer_.finished[0];
  EXPECT_EQ(five.prefill.count(), 0.75) << "three chunks";
  EXPECT_EQ(five.decode.count(), 1.0);
  EXPECT_EQ(five.since_submit.count(), 8.75);
  EXPECT_EQ(five.max_tokens, 5);
  EXPECT_EQ(five.computed_tokens, 20);
  const FinishedStats& one = observer_.finished[1];
  EXPECT_EQ(one.prefill.count(), 0.25);
  EXPECT_EQ(one.decode.count(), 0);
  EXPECT_EQ(one.max_tokens, 1);
}

TEST_F(FinishedStatsTest, ARequestWithoutTokensHasNoTimesOfThem) {
  OpenSlow({.max_sequences = 1, .max_batch_tokens = 8});
  Add(Of(20, 0));
  const RequestId waiting = Add(Of(3, 4));
  Step();
  loop_->Cancel(waiting);
  RunToTheEnd();
  ASSERT_EQ(observer_.finished.size(), 2u);
  const FinishedStats& cancelled = observer_.finished[0];
  EXPECT_EQ(cancelled.reason, FinishReason::kCancelled);
  EXPECT_EQ(cancelled.computed_tokens, 0) << "it was in no step";
  EXPECT_EQ(cancelled.max_tokens, 4);
  const FinishedStats& read = observer_.finished[1];
  EXPECT_EQ(read.computed_tokens, 20);
  for (const FinishedStats& stats : observer_.finished) {
    EXPECT_EQ(stats.completion_tokens, 0);
    EXPECT_EQ(stats.prefill.count(), 0);
    EXPECT_EQ(stats.decode.count(), 0);
    EXPECT_FALSE(stats.corrupted);
  }
}

TEST_F(FinishedStatsTest, PromptTokensAreFoundOrComputed) {
  Open(64, {.max_sequences = 4, .max_batch_tokens = 8, .kv_block_tokens = 4});
  Add(Of(18, 2));
  RunToTheEnd();
  EXPECT_EQ(loop_->Stats().prompt_tokens_cached_total, 0u);
  Add(Of(30, 2));
  Step();
  EXPECT_EQ(loop_->Stats().prompt_tokens_total, 18u + 24u) << "those found, and one chunk";
  EXPECT_EQ(loop_->Stats().prompt_tokens_cached_total, 16u);
  RunToTheEnd();
  EXPECT_EQ(loop_->Stats().prompt_tokens_total, 18u + 30u);
  EXPECT_EQ(loop_->Stats().prompt_tokens_cached_total, 16u) << "counted once";
  ASSERT_EQ(observer_.finished.size(), 2u);
  EXPECT_EQ(observer_.finished[1].cached_tokens, 16);
  EXPECT_EQ(observer_.finished[1].computed_tokens, 14);
}

TEST_F(FinishedStatsTest, WhatIsComputedAgainAfterAPreemptionCountsOnce) {
  Open(6, {.max_sequences = 4, .kv_block_tokens = 4});
  for (int i = 0; i < 3; ++i) {
    GenerationRequest request = Of(4, 18);
    request.cache_salt = std::to_string(i);
    Add(std::move(request));
  }
  RunToTheEnd();
  EXPECT_GT(loop_->Stats().preemptions_kv_full_total, 0u);
  EXPECT_EQ(loop_->Stats().prompt_tokens_cached_total, 0u);
  for (const FinishedStats& stats : observer_.finished) EXPECT_EQ(stats.computed_tokens, 4);
}

TEST_F(FinishedStatsTest, OnlyLogitsThatAreNoNumbersMakeARequestCorrupted) {
  Open(64, {});
  model_->poison = 11;
  GenerationRequest read = Of(3, 4);
  read.prompt_logprobs = 0;
  Add(Of(3, 4));
  Add(std::move(read));
  Add(Greedy({1, 2}, 2));
  RunToTheEnd();
  ASSERT_EQ(observer_.finished.size(), 3u);
  for (const FinishedStats& stats : observer_.finished) {
    EXPECT_EQ(stats.corrupted, stats.reason == FinishReason::kError);
    EXPECT_EQ(stats.corrupted, stats.prompt_tokens == 3);
  }
  // An error of another kind.
  observer_ = {};
  model_->on_forward = [](const ForwardBatch&) -> Status {
    return MakeError(ErrorCode::kInternal, "no");
  };
  Add(Greedy({1, 2}, 2));
  RunToTheEnd();
  ASSERT_EQ(observer_.finished.size(), 1u);
  EXPECT_EQ(observer_.finished[0].reason, FinishReason::kError);
  EXPECT_FALSE(observer_.finished[0].corrupted);
  EXPECT_EQ(observer_.finished[0].computed_tokens, 0);
}

TEST_F(StepLoopTest, TellsWhatBecameOfTheBlocksThatTheKvCacheKept) {
  Open(3, {.kv_block_tokens = 4});
  const auto run = [this](int32_t first, size_t length) {
    std::vector<TokenId> prompt(length);
    std::iota(prompt.begin(), prompt.end(), first);
    Add(Greedy(std::move(prompt), 1));
    RunToTheEnd();
  };
  run(10, 5);  // one block of it is full, and kept
  clock_.Advance(std::chrono::seconds(30));
  run(10, 5);
  EXPECT_EQ(observer_.blocks.reuse_gaps, std::vector<double>{30});
  clock_.Advance(std::chrono::seconds(60));
  run(100, 9);  // takes all three
  ASSERT_EQ(observer_.blocks.evictions.size(), 1U);
  EXPECT_EQ(observer_.blocks.evictions[0].lifetime, 90);
  EXPECT_EQ(observer_.blocks.evictions[0].idle, 60);
  loop_->Detach();  // the model sleeps: nothing gives way to anything
  loop_->Attach(*model_);
  run(200, 9);
  EXPECT_EQ(observer_.blocks.evictions.size(), 1U);
}

}  // namespace
}  // namespace quern
