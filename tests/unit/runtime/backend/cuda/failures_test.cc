// What fails on the device ends the step and those after it with the same error: nothing crashes or
// hangs, and all memory is given back.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <vector>

#include "tests/unit/runtime/backend/cuda/cuda_models.h"
#include "tests/unit/runtime/backend/cuda/device_limit.h"
#include "tests/unit/runtime/engine/byte_tokenizer.h"
#include "tests/unit/runtime/engine/inbox.h"

namespace quern::testing {
namespace {

using ::testing::HasSubstr;

// Puts work on a stream of its own that cannot be right: it writes to memory that was freed. Who
// waits next is told, whatever they wait for.
void PlantFault() {
  CudaStream stream;
  ASSERT_TRUE(stream.Create().ok());
  void* memory = nullptr;
  ASSERT_EQ(cudaMallocAsync(&memory, 64, stream.get()), cudaSuccess);
  ASSERT_EQ(cudaFreeAsync(memory, stream.get()), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(memory, 1, 64, stream.get()), cudaSuccess);
}

class CudaFailures : public ::testing::Test {
 protected:
  void SetUp() override {
    loaded_ = LoadOnCuda(SmallModel());
    ASSERT_TRUE(loaded_.model);
    ASSERT_TRUE(loaded_.model->AllocateKv({kBlockTokens, 8}).ok());
    std::mt19937 random(std::random_device{}());
    tokens_ = RandomTokens(random, 60);
  }
  void TearDown() override {
    loaded_ = {};
    EXPECT_EQ(limit_.used(), 0u);
  }
  StepBatch Batch(int32_t context, int32_t rows) const {
    StepBatch batch;
    batch.Add(std::span(tokens_).first(static_cast<size_t>(context)), rows, BlocksFrom(0, 8));
    return batch;
  }
  Status Forward(int32_t context, int32_t rows, bool logits = true) {
    StepBatch batch = Batch(context, rows);
    std::vector<float> out(static_cast<size_t>(rows) * 70);
    return loaded_.model->Forward(batch.batch(logits), out);
  }
  // All that can say so gives this error from now on.
  void ExpectAllFail(const Error& error) {
    std::vector<float> out(70);
    std::vector<int32_t> token(1);
    const std::vector<int32_t> row(1);
    const std::vector<TokenDraw> draw(1);
    for (int i = 0; i < 2; ++i) {
      const Status statuses[] = {Forward(30, 1),
                                 Forward(50, 20),
                                 Forward(30, 1, false),
                                 loaded_.model->ReadLogits(row, out),
                                 loaded_.model->Draw(row, draw, token),
                                 loaded_.model->ReadHidden(row, out),
                                 loaded_.model->AllocateKv({kBlockTokens, 4})};
      for (const Status& status : statuses) {
        ASSERT_FALSE(status.ok());
        EXPECT_EQ(status.error().code, error.code);
        EXPECT_EQ(status.error().message, error.message);
      }
    }
  }

  DeviceLimit limit_;
  ModelOnCuda loaded_;
  std::vector<int32_t> tokens_;
};

TEST_F(CudaFailures, AFaultThatAStepFindsIsKept) {
  ASSERT_TRUE(Forward(20, 20).ok());
  PlantFault();
  const Status failed = Forward(21, 1);
  ASSERT_FALSE(failed.ok());
  EXPECT_TRUE(loaded_.model->lost());
  EXPECT_EQ(failed.error().code, ErrorCode::kInternal);
  EXPECT_THAT(failed.error().message, HasSubstr("cudaErrorLaunchFailure"));
  EXPECT_THAT(failed.error().message, HasSubstr("use after free"));
  ExpectAllFail(failed.error());
}

// Nobody waits for a step without logits: the begin of one after it finds the fault.
TEST_F(CudaFailures, AFaultThatTheBeginOfAStepFindsIsKept) {
  PlantFault();
  ASSERT_TRUE(Forward(20, 20, false).ok());
  ASSERT_TRUE(Forward(21, 1, false).ok());
  const Status failed = Forward(22, 1, false);  // waits for the first step's copy
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(failed.error().message, HasSubstr("copying a step's inputs"));
  EXPECT_THAT(failed.error().message, HasSubstr("use after free"));
  ExpectAllFail(failed.error());
}

TEST_F(CudaFailures, AFaultWhileARecordedStepIsRepeatedIsKept) {
  for (int32_t context = 1; context < 5; ++context) ASSERT_TRUE(Forward(context, 1).ok());
  ASSERT_GE(loaded_.backend->graphs().repeated(), 1);
  PlantFault();
  const Status failed = Forward(5, 1);
  ASSERT_FALSE(failed.ok());
  ExpectAllFail(failed.error());
}

// And no longer than that: the step after it has what it needs.
TEST_F(CudaFailures, MemoryThatIsShortFailsTheStepThatNeedsIt) {
  ASSERT_TRUE(Forward(20, 20, false).ok());
  limit_.Close();
  const Status failed = Forward(40, 20);  // has made no room for logits yet
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code, ErrorCode::kResourceExhausted);
  EXPECT_THAT(failed.error().message, HasSubstr("the rows whose logits are wanted needs"));
  EXPECT_FALSE(loaded_.model->lost());
  limit_.Set(size_t{1} << 30);
  const auto status = Forward(40, 20);
  EXPECT_TRUE(status.ok()) << status.error().message;
}

// What the largest step takes is taken before it comes: steps need nothing then.
TEST_F(CudaFailures, StepsThatWereReservedForNeedNoMemory) {
  ASSERT_TRUE(loaded_.model->ReserveSteps(/*tokens=*/60, /*sequences=*/4, 120).ok());
  const size_t used = limit_.used();
  ASSERT_TRUE(Forward(20, 20, false).ok());
  ASSERT_TRUE(Forward(60, 40, false).ok());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Forward(60, 1, false).ok());
  std::vector<int32_t> token(1);
  ASSERT_TRUE(loaded_.model->ReserveSteps(60, 4, 120).ok());
  EXPECT_EQ(limit_.used(), used);
}

TEST_F(CudaFailures, ATokenThatIsNotThereGivesNoTokenAndHarmsNoOther) {
  const auto expected = ForwardAll(*loaded_.model, Batch(20, 20));
  StepBatch batch;
  std::vector<int32_t> wrong = tokens_;
  wrong.resize(6);
  wrong[2] = 70;
  batch.Add(std::span(tokens_).first(20), 20, BlocksFrom(0, 2));
  batch.Add(wrong, 6, BlocksFrom(2, 1));
  std::vector<float> logits(26 * 70);
  ASSERT_TRUE(loaded_.model->Forward(batch.batch(true), logits).ok());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), logits.begin()));
  std::vector<int32_t> drawn(2);
  const std::vector<int32_t> rows = {19, 25};
  const std::vector<TokenDraw> draws = {{0, 1, 0, 0, 1, 1}, {1, 1, 0, 0, 1, 1}};
  ASSERT_TRUE(loaded_.model->Draw(rows, draws, drawn).ok());
  EXPECT_GE(drawn[0], 0);
  EXPECT_EQ(drawn[1], -1);
}

// Counts how often the engine says that its model is lost.
struct LossObserver : EngineObserver {
  void OnStep(const StepStats& /*stats*/) override {}
  void OnFirstToken(Seconds /*since_submit*/, Seconds /*queued*/) override {}
  void OnInterToken(Seconds /*gap*/) override {}
  void OnFinished(const FinishedStats& /*stats*/) override {}
  void OnModelLost(const Error& error) override {
    EXPECT_THAT(error.message, HasSubstr("use after free"));
    ++losses;
  }
  std::atomic<int> losses = 0;
};

// The engine's requests end with the error, those that come later, too.
TEST(CudaEngineFailures, EndRequestsAndNothingElse) {
  const DeviceLimit limit;
  const ByteTokenizer tokenizer;
  LossObserver observer;
  TinyModel tiny = SmallModel();
  tiny.vocab = 264;
  auto engine = EngineCore::Start(LoadOnCuda(tiny).model, tokenizer,
                                  {.max_sequences = 4, .kv_memory_bytes = 1 << 20}, &observer);
  ASSERT_TRUE(engine.ok()) << engine.error().message;
  const auto submit = [&](Inbox& answer, int32_t max_tokens) {
    const auto id = (*engine)->Submit({.prompt = Bytes("some words"),
                                       .sampling = {.temperature = 0},
                                       .max_tokens = max_tokens,
                                       .ignore_eos = true},
                                      answer.Sink());
    ASSERT_TRUE(id.ok()) << id.error().message;
  };
  Inbox well, first, second, later;
  submit(well, 3);
  EXPECT_EQ(well.AwaitEnd(), FinishReason::kLength);
  submit(first, 900);
  submit(second, 900);
  ASSERT_TRUE(first.AwaitTokens(2) && second.AwaitTokens(2));
  PlantFault();
  EXPECT_EQ(first.AwaitEnd(), FinishReason::kError);
  EXPECT_EQ(second.AwaitEnd(), FinishReason::kError);
  submit(later, 3);
  EXPECT_EQ(later.AwaitEnd(), FinishReason::kError);
  EXPECT_GE(observer.losses, 1);
  EXPECT_TRUE((*engine)->Drain(kDeadline));
  EXPECT_EQ((*engine)->Stats().kv_blocks_used, 0);
  engine->reset();
  EXPECT_EQ(limit.used(), 0u);
}

}  // namespace
}  // namespace quern::testing
