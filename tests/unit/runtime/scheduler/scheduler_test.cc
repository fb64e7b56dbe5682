#include "runtime/scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "runtime/scheduler/step_time.h"

namespace quern {
namespace {

// A scheduler with the smallest engine around it: every step runs, and every sequence that samples
// gets a token.
class SchedulerTest : public testing::Test {
 protected:
  void TearDown() override {
    for (const auto& sequence : sequences_) state_->Remove(sequence.get());
    EXPECT_EQ(state_->pool.num_used(), 0);
  }

  void Open(int32_t num_blocks, SchedulerLimits limits) {
    state_ = std::make_unique<SchedulerState>(num_blocks, 4);
    limits_ = limits;
  }

  Sequence* Add(int32_t prompt_tokens) {
    auto sequence = std::make_unique<Sequence>();
    sequence->arrival = sequences_.size();
    sequence->prompt_tokens = sequence->total_tokens = prompt_tokens;
    state_->Add(sequence.get());
    sequences_.push_back(std::move(sequence));
    return sequences_.back().get();
  }

  SchedulerOutput Step() {
    SchedulerOutput output = Schedule(*state_, limits_);
    const Status intact = state_->CheckIntegrity();
    EXPECT_TRUE(intact.ok()) << intact.error().message;
    state_->Commit(output);
    for (const auto& scheduled : output.sequences) {
      if (scheduled.samples) ++scheduled.sequence->total_tokens;
    }
    return output;
  }

  std::vector<Sequence*> Waiting() const {
    std::vector<Sequence*> waiting;
    state_->waiting.ForEach([&](Sequence* sequence) { waiting.push_back(sequence); });
    return waiting;
  }

  std::unique_ptr<SchedulerState> state_;
  SchedulerLimits limits_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
};

TEST_F(SchedulerTest, NothingToDoGivesAnEmptyStep) {
  Open(4, {});
  EXPECT_TRUE(Step().sequences.empty());
}

TEST_F(SchedulerTest, AShortPromptIsPrefilledInOneStepAndThenDecoded) {
  Open(4, {.max_sequences = 2, .max_batch_tokens = 16});
  Sequence* a = Add(5);
  SchedulerOutput step = Step();
  ASSERT_EQ(step.sequences.size(), 1u);
  EXPECT_EQ(step.sequences[0].sequence, a);
  EXPECT_EQ(step.sequences[0].num_tokens, 5);
  EXPECT_TRUE(step.sequences[0].samples);
  EXPECT_EQ(step.num_decodes, 0);
  EXPECT_EQ(a->blocks.size(), 2);

  step = Step();
  ASSERT_EQ(step.sequences.size(), 1u);
  EXPECT_EQ(step.sequences[0].num_tokens, 1);
  EXPECT_EQ(step.num_decodes, 1);
}

TEST_F(SchedulerTest, PromptTokensAreBoundedBesideDecodesAndOnlyThere) {
  Open(64, {.max_sequences = 3, .max_batch_tokens = 32, .max_prefill_tokens = 5});
  Add(20);
  EXPECT_EQ(Step().num_tokens, 20);  // nothing streams yet
  Add(12);
  Add(12);
  const SchedulerOutput step = Step();
  EXPECT_EQ(step.num_decodes, 1);
  EXPECT_EQ(step.num_tokens, 1 + 5);  // one chunk: the second prompt finds nothing left
  EXPECT_EQ(Step().num_tokens, 1 + 5);
}

TEST_F(SchedulerTest, PressureCountsStreamsAndThePromptsThatThereArePlacesFor) {
  Open(64, {.max_sequences = 4, .max_batch_tokens = 8});
  Add(6);
  Step();
  Add(20);
  Step();  // one decodes, 7 tokens of the other are cached
  for (int i = 0; i < 5; ++i) Add(3);
  const PrefillPressure pressure = PressureOf(*state_, limits_);
  EXPECT_EQ(pressure.decoding, 1);
  EXPECT_EQ(pressure.decode_context, 8);
  EXPECT_EQ(pressure.prefilling, 3);  // itself and two of five: there are four places
  EXPECT_EQ(pressure.prefill_context, 7);
}

TEST_F(SchedulerTest, ALongPromptIsCutIntoChunksAndSamplesOnlyAfterItsLast) {
  Open(8, {.max_sequences = 2, .max_batch_tokens = 8});
  Add(20);
  std::vector<int32_t> chunks;
  std::vector<bool> samples;
  for (int i = 0; i < 3; ++i) {
    const SchedulerOutput step = Step();
    ASSERT_EQ(step.sequences.size(), 1u);
    chunks.push_back(step.sequences[0].num_tokens);
    samples.push_back(step.sequences[0].samples);
  }
  EXPECT_EQ(chunks, (std::vector<int32_t>{8, 8, 4}));
  EXPECT_EQ(samples, (std::vector<bool>{false, false, true}));
}

TEST_F(SchedulerTest, DecodesComeFirstAndALongPromptTakesWhatIsLeft) {
  Open(32, {.max_sequences = 4, .max_batch_tokens = 8});
  Sequence* a = Add(3);
  Sequence* b = Add(4);
  Step();
  Sequence* c = Add(30);
  const SchedulerOutput step = Step();
  ASSERT_EQ(step.sequences.size(), 3u);
  EXPECT_EQ(step.sequences[0].sequence, a);
  EXPECT_EQ(step.sequences[1].sequence, b);
  EXPECT_EQ(step.sequences[2].sequence, c);
  EXPECT_EQ(step.sequences[2].num_tokens, 6);
  EXPECT_EQ(step.num_decodes, 2);
  EXPECT_EQ(step.num_tokens, 8);
}

TEST_F(SchedulerTest, APromptThatBecomesReadyJoinsTheDecodesOfTheNextStep) {
  Open(32, {.max_sequences = 4, .max_batch_tokens = 64});
  Add(3);
  Step();
  Add(7);
  EXPECT_EQ(Step().num_decodes, 1);
  EXPECT_EQ(Step().num_decodes, 2);
}

TEST_F(SchedulerTest, RunsNoMoreSequencesThanItsLimit) {
  Open(32, {.max_sequences = 2, .max_batch_tokens = 64});
  for (int i = 0; i < 5; ++i) Add(3);
  EXPECT_EQ(Step().sequences.size(), 2u);
  EXPECT_EQ(state_->waiting.size(), 3u);
  state_->Remove(sequences_[0].get());
  const SchedulerOutput step = Step();
  ASSERT_EQ(step.sequences.size(), 2u);
  EXPECT_EQ(step.sequences[1].sequence, sequences_[2].get()) << "first come, first served";
}

TEST_F(SchedulerTest, TheLatestArrivalGoesBackToTheFrontOfTheQueueWhenBlocksRunOut) {
  Open(4, {.max_sequences = 4, .max_batch_tokens = 64});
  Sequence* a = Add(4);
  Sequence* b = Add(4);
  Step();                              // one block each
  for (int i = 0; i < 4; ++i) Step();  // a second block each: the pool is used up
  ASSERT_EQ(state_->pool.num_free(), 0);
  Sequence* c = Add(1);
  const SchedulerOutput step = Step();
  EXPECT_EQ(step.num_preempted(), 1);
  ASSERT_EQ(step.sequences.size(), 1u);
  EXPECT_EQ(step.sequences[0].sequence, a);
  ASSERT_EQ(state_->waiting.size(), 2u);
  EXPECT_EQ(Waiting(), (std::vector<Sequence*>{b, c}));
  EXPECT_EQ(b->total_tokens, 9) << "what it generated is kept";
  EXPECT_EQ(b->cached_tokens, 0);
}

TEST_F(SchedulerTest, APreemptedSequenceIsRecomputedWholeBeforeItSamplesAgain) {
  Open(4, {.max_sequences = 4, .max_batch_tokens = 64});
  Sequence* a = Add(4);
  Sequence* b = Add(4);
  for (int i = 0; i < 6; ++i) Step();
  ASSERT_EQ(state_->waiting.size(), 1u);
  state_->Remove(a);
  const SchedulerOutput step = Step();
  ASSERT_EQ(step.sequences.size(), 1u);
  EXPECT_EQ(step.sequences[0].sequence, b);
  EXPECT_EQ(step.sequences[0].num_tokens, 9);
  EXPECT_TRUE(step.sequences[0].samples);
  EXPECT_EQ(step.num_decodes, 0);
  EXPECT_EQ(step.preempted_tokens, 8);
}

TEST_F(SchedulerTest, ALoneSequenceMayUseEveryBlock) {
  Open(3, {.max_sequences = 4, .max_batch_tokens = 64});
  Sequence* a = Add(4);
  while (a->total_tokens < 13) {
    const SchedulerOutput step = Step();
    ASSERT_EQ(step.sequences.size(), 1u);
    ASSERT_EQ(step.num_preempted(), 0);
  }
  EXPECT_EQ(a->cached_tokens, 12);
}

TEST_F(SchedulerTest, ANewcomerWaitsWhileItsPromptDoesNotFitBesideTheRunningOnes) {
  Open(6, {.max_sequences = 4, .max_batch_tokens = 64});
  Add(8);
  Add(16);
  EXPECT_EQ(Step().sequences.size(), 1u);
  EXPECT_EQ(state_->waiting.size(), 1u);
}

TEST_F(SchedulerTest, NoLaterArrivalOvertakesOneThatDoesNotFitYet) {
  Open(6, {.max_sequences = 4, .max_batch_tokens = 64});
  Add(8);
  Add(16);
  Add(1);
  EXPECT_EQ(Step().sequences.size(), 1u);
  EXPECT_EQ(state_->waiting.size(), 2u);
}

TEST_F(SchedulerTest, AnEarlierPromptTakesBlocksFromALaterDecodeRatherThanStandStill) {
  Open(4, {.max_sequences = 4, .max_batch_tokens = 4});
  Sequence* a = Add(8);
  Step();  // half of its prompt
  // A state that admission would not make, but that must not lock up either: a later sequence holds
  // all the rest.
  Sequence* b = Add(1);
  state_->waiting.Start(b);
  state_->running.push_back(b);
  ASSERT_TRUE(b->blocks.Grow(3, state_->pool));
  b->total_tokens = 11;
  b->cached_tokens = 10;
  const SchedulerOutput step = Step();
  ASSERT_EQ(step.sequences.size(), 1u);
  EXPECT_EQ(step.sequences[0].sequence, a);
  EXPECT_EQ(step.num_decodes, 0);
  EXPECT_EQ(step.num_preempted(), 1);
  EXPECT_EQ(state_->waiting.Next(), b);
}

TEST_F(SchedulerTest, RemovingAWaitingSequenceLeavesTheOthersInOrder) {
  Open(32, {.max_sequences = 1, .max_batch_tokens = 64});
  for (int i = 0; i < 3; ++i) Add(3);
  Step();
  state_->Remove(sequences_[1].get());
  ASSERT_EQ(state_->waiting.size(), 1u);
  EXPECT_EQ(state_->waiting.Next(), sequences_[2].get());
}

TEST_F(SchedulerTest, IntegrityCheckFindsASequenceOutOfOrder) {
  Open(32, {.max_sequences = 2, .max_batch_tokens = 64});
  Add(3);
  Add(3);
  std::swap(sequences_[0]->arrival, sequences_[1]->arrival);
  EXPECT_FALSE(state_->CheckIntegrity().ok());
  std::swap(sequences_[0]->arrival, sequences_[1]->arrival);
  EXPECT_TRUE(state_->CheckIntegrity().ok());
}

int32_t g_hashes = 0;
uint64_t CountingHash(uint64_t seed, uint64_t parent, const PrefixIndex::Key& key) {
  ++g_hashes;
  return PrefixIndex::DefaultHash(seed, parent, key);
}

TEST_F(SchedulerTest, AFullBatchDoesNotLookUpThePromptThatWaitsInEveryStep) {
  state_ = std::make_unique<SchedulerState>(64, 4, 0, WindowLayout{}, CountingHash);
  limits_ = {.max_sequences = 1, .max_batch_tokens = 16};
  std::vector<int32_t> tokens(40, 7);
  Sequence* first = Add(5);
  Sequence* second = Add(40);
  second->tokens = &tokens;
  for (int i = 0; i < 5; ++i) Step();
  EXPECT_EQ(g_hashes, 0);
  state_->Remove(first);
  Step();
  EXPECT_GT(g_hashes, 0) << "its prefix is looked up when there is a place";
  EXPECT_EQ(state_->running.front(), second);
}

TEST_F(SchedulerTest, NorThatOfATenantForWhomNobodyWouldGiveWay) {
  g_hashes = 0;
  state_ = std::make_unique<SchedulerState>(64, 4, 0, WindowLayout{}, CountingHash);
  limits_ = {.max_sequences = 2, .max_batch_tokens = 16};
  std::vector<int32_t> tokens(40, 7);
  // Each of two tenants has its half; what the one has waiting must wait.
  for (int i = 0; i < 3; ++i) {
    auto sequence = std::make_unique<Sequence>();
    sequence->arrival = static_cast<uint64_t>(i);
    sequence->tenant = i == 1 ? "b" : "a";
    sequence->prompt_tokens = sequence->total_tokens = i == 2 ? 40 : 5;
    if (i == 2) sequence->tokens = &tokens;
    state_->Add(sequence.get());
    sequences_.push_back(std::move(sequence));
    Step();
  }
  for (int i = 0; i < 5; ++i) Step();
  ASSERT_EQ(state_->running.size(), 2u);
  EXPECT_TRUE(sequences_[2]->waits);
  EXPECT_EQ(g_hashes, 0);
  sequences_[0]->tokens = nullptr;
  state_->Remove(sequences_[0].get());
  Step();
  EXPECT_GT(g_hashes, 0);
}

}  // namespace
}  // namespace quern
