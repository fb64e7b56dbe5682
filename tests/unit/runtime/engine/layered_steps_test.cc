// Prompts whose chunks go through some of the layers a step, as the engine runs them: what comes
// out must be what it is without.
#include <gtest/gtest.h>

#include "tests/unit/runtime/engine/step_loop_fixture.h"

namespace quern {
namespace {

// A machine on which loading a chunk's context costs as much as ten of its tokens.
class LayeredStepsTest : public StepLoopTest {
 protected:
  void OpenMachine(EngineOptions options = {.max_sequences = 4}) {
    options.max_decode_slowdown = 2;
    Open(256, options);
    model_->on_forward = [this](const ForwardBatch& batch) {
      clock_.Advance(std::chrono::nanoseconds(static_cast<int64_t>(Milliseconds(batch) * 1e6)));
      return on_forward_ ? on_forward_(batch) : Status();
    };
  }

  double Milliseconds(const ForwardBatch& batch) {
    double sum = 4;
    for (const auto& sequence : batch.sequences) {
      const bool last = &sequence == &batch.sequences.back();
      const int32_t end = last ? std::min(batch.end_layer, HashModel::kLayers) : HashModel::kLayers;
      const int32_t first = last ? batch.first_layer : 0;
      layered_ += end - first < HashModel::kLayers ? 1 : 0;
      sum += (sequence.num_rows + 0.02 * sequence.context_tokens) * (end - first) /
             static_cast<double>(HashModel::kLayers);
    }
    return sum;
  }

  static std::vector<TokenId> Prompt(int32_t tokens, int32_t seed) {
    std::vector<TokenId> prompt;
    for (int32_t i = 0; i < tokens; ++i) prompt.push_back((i * 7 + seed * 13 + i * i) % 200);
    return prompt;
  }

  // Two streams, after which steps of every kind have been seen.
  void Stream() {
    for (const int32_t seed : {1, 2}) {
      streams_.push_back(Add(Greedy(Prompt(20, seed), 500)));
      for (int i = 0; i < 8; ++i) Step();
    }
    for (const int32_t seed : {8, 9}) {
      Add(Greedy(Prompt(150, seed), 1));
      for (int i = 0; i < 20; ++i) Step();
    }
  }

  bool AwaitHeld(size_t steps = 200) {
    for (const int before = layered_; layered_ == before && steps > 0; --steps) Step();
    return steps > 0;
  }

  void ExpectAnswers() {
    RunToTheEnd();
    EXPECT_EQ(heard_[streams_[0]].tokens, Expected(Prompt(20, 1), 500));
    EXPECT_EQ(heard_[streams_[1]].tokens, Expected(Prompt(20, 2), 500));
    EXPECT_EQ(loop_->Stats().kv_blocks_used, 0);
  }

  std::function<Status(const ForwardBatch&)> on_forward_;
  std::vector<RequestId> streams_;
  int layered_ = 0;
};

TEST_F(LayeredStepsTest, AnswersAreTheSame) {
  OpenMachine();
  Stream();
  const RequestId a = Add(Greedy(Prompt(600, 3), 10));
  const RequestId b = Add(Greedy(Prompt(333, 4), 10));
  ASSERT_TRUE(AwaitHeld());
  ExpectAnswers();
  EXPECT_GT(layered_, 20);
  EXPECT_EQ(heard_[a].tokens, Expected(Prompt(600, 3), 10));
  EXPECT_EQ(heard_[b].tokens, Expected(Prompt(333, 4), 10));
}

TEST_F(LayeredStepsTest, WhoIsCancelledOnTheWayLeavesNothingBehind) {
  OpenMachine();
  Stream();
  const RequestId a = Add(Greedy(Prompt(600, 3), 10));
  ASSERT_TRUE(AwaitHeld());
  loop_->Cancel(a);
  Deliver();
  const RequestId b = Add(Greedy(Prompt(600, 5), 10));
  ExpectAnswers();
  EXPECT_EQ(heard_[a].finish, FinishReason::kCancelled);
  EXPECT_EQ(heard_[b].tokens, Expected(Prompt(600, 5), 10));
}

TEST_F(LayeredStepsTest, AFailedStepEndsItsRequestsAndWhatIsHeldWithThem) {
  OpenMachine();
  Stream();
  const RequestId a = Add(Greedy(Prompt(600, 3), 10));
  ASSERT_TRUE(AwaitHeld());
  bool failed = false;
  on_forward_ = [&](const ForwardBatch& batch) -> Status {
    if (failed || batch.first_layer == 0) return {};
    failed = true;
    return MakeError(ErrorCode::kResourceExhausted, "no memory");
  };
  RunToTheEnd();
  EXPECT_TRUE(failed);
  EXPECT_EQ(heard_[a].finish, FinishReason::kError);
  const RequestId b = Add(Greedy(Prompt(600, 5), 10));
  RunToTheEnd();
  EXPECT_EQ(heard_[b].tokens, Expected(Prompt(600, 5), 10));
  EXPECT_EQ(loop_->Stats().kv_blocks_used, 0);
}

TEST_F(LayeredStepsTest, APromptOfWhichNothingIsGeneratedEndsWhenItsLastLayerHasRun) {
  OpenMachine();
  Stream();
  GenerationRequest only_read = Greedy(Prompt(600, 3), 0);
  only_read.pooling = Pooling::kLast;
  const RequestId a = Add(std::move(only_read));
  ASSERT_TRUE(AwaitHeld());
  EXPECT_FALSE(heard_[a].finish.has_value());
  ExpectAnswers();
  EXPECT_EQ(heard_[a].finish, FinishReason::kLength);
  ASSERT_EQ(heard_[a].embedding.size(), 3u);
}

TEST_F(LayeredStepsTest, PreemptedOnTheWayItBeginsAgain) {
  OpenMachine({.max_sequences = 4, .kv_block_tokens = 4});
  Stream();
  const RequestId a = Add(Greedy(Prompt(800, 3), 100));
  ASSERT_TRUE(AwaitHeld());
  ExpectAnswers();
  EXPECT_GT(loop_->Stats().preemptions_kv_full_total, 0u);
  EXPECT_EQ(heard_[a].tokens, Expected(Prompt(800, 3), 100));
}

}  // namespace
}  // namespace quern
