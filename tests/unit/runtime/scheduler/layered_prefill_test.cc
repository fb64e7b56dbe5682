// Chunks of prompts that go through some of the layers in each step.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/scheduler/scheduler.h"

namespace quern {
namespace {

class LayeredPrefillTest : public testing::Test {
 protected:
  static constexpr SchedulerLimits kLimits = {.max_sequences = 8,
                                              .max_batch_tokens = 64,
                                              .max_prefill_tokens = 4,
                                              .layers = 10,
                                              .layered_tokens = 20,
                                              .step_layers = 3};

  void TearDown() override {
    for (const auto& sequence : sequences_) state_.Remove(sequence.get());
    EXPECT_EQ(state_.pool.num_used(), 0);
    EXPECT_EQ(state_.held, nullptr);
  }

  Sequence* Add(int32_t prompt_tokens, const std::string& tenant = "", int32_t priority = 0) {
    auto sequence = std::make_unique<Sequence>();
    sequence->arrival = sequences_.size();
    sequence->prompt_tokens = sequence->total_tokens = prompt_tokens;
    sequence->tenant = tenant;
    sequence->priority = priority;
    state_.Add(sequence.get());
    sequences_.push_back(std::move(sequence));
    return sequences_.back().get();
  }

  SchedulerOutput Step() {
    SchedulerOutput output = Schedule(state_, limits_);
    state_.Commit(output);
    for (const auto& scheduled : output.sequences) {
      if (scheduled.samples) ++scheduled.sequence->total_tokens;
    }
    const Status intact = state_.CheckIntegrity();
    EXPECT_TRUE(intact.ok()) << intact.error().message;
    return output;
  }

  // Its part of the step; null: none.
  static const ScheduledSequence* PartOf(const SchedulerOutput& step, const Sequence* sequence) {
    for (const ScheduledSequence& it : step.sequences) {
      if (it.sequence == sequence) return &it;
    }
    return nullptr;
  }
  static void ExpectLayers(const SchedulerOutput& step, const Sequence* sequence, int32_t tokens,
                           int32_t first, int32_t end) {
    const ScheduledSequence* part = PartOf(step, sequence);
    ASSERT_NE(part, nullptr);
    EXPECT_EQ(part->num_tokens, tokens);
    EXPECT_EQ(part->first_layer, first);
    EXPECT_EQ(part->end_layer, end);
  }

  // A sequence that decodes.
  Sequence* Stream() {
    Sequence* stream = Add(3);
    Step();
    EXPECT_TRUE(stream->decoding());
    return stream;
  }

  SchedulerState state_{64, 4};
  SchedulerLimits limits_ = kLimits;
  std::vector<std::unique_ptr<Sequence>> sequences_;
};

TEST_F(LayeredPrefillTest, AChunkGoesThroughAFewLayersAStepAndIsCachedAfterTheLast) {
  Stream();
  Sequence* prompt = Add(50);
  for (int round = 0; round < 2; ++round) {
    for (const int32_t first : {0, 3, 6}) {
      ExpectLayers(Step(), prompt, 20, first, first + 3);
      EXPECT_EQ(prompt->cached_tokens, 20 * round);
      EXPECT_EQ(state_.held, prompt);
    }
    ExpectLayers(Step(), prompt, 20, 9, kAllLayers);
    EXPECT_EQ(prompt->cached_tokens, 20 * (round + 1));
    EXPECT_EQ(state_.held, nullptr);
  }
  // The rest is shorter, and goes through as many more layers; its last row gives a token.
  const SchedulerOutput step = Step();
  ExpectLayers(step, prompt, 10, 0, 6);
  EXPECT_FALSE(PartOf(step, prompt)->samples);
  const SchedulerOutput last = Step();
  ExpectLayers(last, prompt, 10, 6, kAllLayers);
  EXPECT_TRUE(PartOf(last, prompt)->samples);
  EXPECT_EQ(last.num_decodes, 1);
}

TEST_F(LayeredPrefillTest, WithoutStreamsOrForShortPromptsChunksAreWhole) {
  Sequence* prompt = Add(50);
  ExpectLayers(Step(), prompt, 50, 0, kAllLayers);
  Sequence* shorter = Add(4);
  ExpectLayers(Step(), shorter, 4, 0, kAllLayers);
  Sequence* every_row = Add(30);
  every_row->every_row = true;  // its rows' logits are wanted
  ExpectLayers(Step(), every_row, 4, 0, kAllLayers);
}

TEST_F(LayeredPrefillTest, WhatIsHeldGoesOnToTheLastLayerWhenTheStreamsEnd) {
  Sequence* stream = Stream();
  Sequence* prompt = Add(50);
  Step();
  state_.Remove(stream);
  Sequence* next = Add(7);
  const SchedulerOutput step = Step();
  ExpectLayers(step, prompt, 20, 3, kAllLayers);
  EXPECT_EQ(step.sequences.back().sequence, prompt) << "it is the last of the batch";
  ExpectLayers(step, next, 7, 0, kAllLayers);
}

TEST_F(LayeredPrefillTest, ItGoesOnToTheLastLayerWhenOrdinaryChunksWouldBeAsLarge) {
  Stream();
  Sequence* prompt = Add(50);
  Step();
  limits_.max_prefill_tokens = 40;
  limits_.layered_tokens = 0;
  ExpectLayers(Step(), prompt, 20, 3, kAllLayers);
}

TEST_F(LayeredPrefillTest, AnotherPromptMayGoFirstAndWhatIsHeldStays) {
  Stream();
  Sequence* prompt = Add(50, "", /*priority=*/1);
  Step();
  Sequence* other = Add(10);
  SchedulerOutput step = Step();
  ExpectLayers(step, other, 4, 0, kAllLayers);
  EXPECT_EQ(PartOf(step, prompt), nullptr);
  EXPECT_EQ(state_.held, prompt);
  ExpectLayers(Step(), other, 4, 0, kAllLayers);
  // What the other leaves of the step is a part of the layers.
  step = Step();
  ExpectLayers(step, other, 2, 0, kAllLayers);
  ExpectLayers(step, prompt, 20, 3, 4);
  EXPECT_EQ(step.sequences.back().sequence, prompt);
}

TEST_F(LayeredPrefillTest, WhatTheLastLayersLeaveOfAStepIsThereForOthers) {
  Stream();
  Sequence* prompt = Add(20);
  Step();
  Sequence* next = Add(30);
  Step();
  Step();
  const SchedulerOutput step = Step();  // one layer, where the step has room for three
  ExpectLayers(step, prompt, 20, 9, kAllLayers);
  ExpectLayers(step, next, 2, 0, kAllLayers);
  EXPECT_EQ(step.sequences.back().sequence, prompt);
  ExpectLayers(Step(), next, 20, 0, 3);
}

TEST_F(LayeredPrefillTest, AShortRestPaysForItsContextToo) {
  Stream();
  Sequence* prompt = Add(25);
  limits_.load_tokens = 10;  // 3 layers of 20 + 10 are 6 of 5 + 10
  for (int i = 0; i < 4; ++i) Step();
  ExpectLayers(Step(), prompt, 5, 0, 6);
}

// It waits for room rather than begin again.
TEST_F(LayeredPrefillTest, OthersThatTakeTheRoomOfAStepDoNotCostWhatIsHeld) {
  limits_.max_batch_tokens = 22;
  Stream();
  Sequence* prompt = Add(50, "", /*priority=*/1);
  Step();
  Add(3);
  SchedulerOutput step = Step();  // 1 + 3 + 20 are too many
  EXPECT_EQ(PartOf(step, prompt), nullptr);
  EXPECT_EQ(state_.held, prompt);
  ExpectLayers(Step(), prompt, 20, 3, 6);
}

TEST_F(LayeredPrefillTest, WhoIsCancelledOrPreemptedLosesWhatIsHeld) {
  Stream();
  Sequence* prompt = Add(50);
  Step();
  state_.Preempt(prompt);
  EXPECT_EQ(state_.held, nullptr);
  ExpectLayers(Step(), prompt, 20, 0, 3);
  state_.Remove(prompt);
  EXPECT_EQ(state_.held, nullptr);
  Sequence* next = Add(50);
  ExpectLayers(Step(), next, 20, 0, 3);
}

TEST_F(LayeredPrefillTest, ATenantPaysForATokenOnce) {
  Stream();
  Sequence* prompt = Add(50, "a");
  const auto paid_until = [&](int steps) {
    for (int i = 0; i < steps; ++i) Step();
    return prompt->account->counter;
  };
  const auto first = paid_until(1);
  EXPECT_EQ(paid_until(3), first) << "the other layers are paid with the first";
  const auto second = paid_until(1);
  EXPECT_GT(second, first);
  state_.Preempt(prompt);
  EXPECT_EQ(paid_until(5), second) << "what is computed again costs nothing";
}

TEST_F(LayeredPrefillTest, WhatIsHeldAndNoLongerFitsTheBatchRunsAgainInSmallerChunks) {
  Stream();
  Sequence* prompt = Add(50);
  Step();
  limits_.max_batch_tokens = limits_.max_sequences = 12;
  ExpectLayers(Step(), prompt, 11, 0, 5);
}

}  // namespace
}  // namespace quern
