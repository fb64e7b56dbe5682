// The engine without its model for a while. Run under ThreadSanitizer as well.

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "tests/unit/runtime/engine/engine_core_fixture.h"

namespace quern {
namespace {

using EngineSleepTest = EngineCoreTest;

// A model that says when it goes.
class MortalModel : public HashModel {
 public:
  explicit MortalModel(bool* gone) : gone_(gone) {}
  ~MortalModel() override { *gone_ = true; }

 private:
  bool* const gone_;
};

class OtherModel : public HashModel {
 public:
  OtherModel() : other_(HashModel::info()) { ++other_.vocab_size; }
  const ModelInfo& info() const override { return other_; }

 private:
  ModelInfo other_;
};

TEST_F(EngineSleepTest, ASleepingModelIsGoneAndAnotherGoesOnAsBefore) {
  bool gone = false;
  model_ = std::make_unique<MortalModel>(&gone);
  Start();
  const GenerationRequest request{.prompt = std::vector<TokenId>(40, 7),
                                  .sampling = {.temperature = 0},
                                  .max_tokens = 30,
                                  .ignore_eos = true};
  Inbox before;
  ASSERT_TRUE(engine_->Submit(request, before.Sink()).ok());
  ASSERT_EQ(before.AwaitEnd(), FinishReason::kLength);
  const EngineStats awake = engine_->Stats();
  EXPECT_FALSE(awake.asleep);

  ASSERT_TRUE(engine_->Sleep(kDeadline).ok());
  EXPECT_TRUE(gone);
  EXPECT_TRUE(engine_->Sleep(kDeadline).ok()) << "twice is once";
  EXPECT_TRUE(engine_->Stats().asleep);
  EXPECT_EQ(engine_->Stats().kv_blocks_total, 0);
  EXPECT_EQ(engine_->Stats().generated_tokens_total, 30u) << "counters never fall";
  const auto refused = engine_->Submit(request, [](GenerationDelta) {});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(refused.error().message.find("sleeps"), std::string::npos) << refused.error().message;

  auto next = std::make_unique<HashModel>();
  int prompt_tokens = 0;
  next->on_forward = [&](const ForwardBatch& batch) -> Status {
    prompt_tokens = std::max(prompt_tokens, static_cast<int>(batch.tokens.size()));
    return {};
  };
  ASSERT_TRUE(engine_->Wake(std::move(next)).ok());
  EXPECT_TRUE(engine_->Wake(std::make_unique<HashModel>()).ok()) << "twice is once";
  EXPECT_FALSE(engine_->Stats().asleep);
  EXPECT_EQ(engine_->Stats().kv_blocks_total, awake.kv_blocks_total);
  Inbox after;
  ASSERT_TRUE(engine_->Submit(request, after.Sink()).ok());
  ASSERT_EQ(after.AwaitEnd(), FinishReason::kLength);
  EXPECT_EQ(after.tokens(), before.tokens());
  EXPECT_EQ(prompt_tokens, 40) << "what the old model had cached is taken for this one's";
}

TEST_F(EngineSleepTest, WaitsForWhatRunsAndTakesNothingNewMeanwhile) {
  model_->on_forward = [this](const ForwardBatch&) -> Status {
    gate_.Pass();
    return {};
  };
  Start();
  Inbox inbox;
  ASSERT_TRUE(
      engine_->Submit({.prompt = {1}, .max_tokens = 20, .ignore_eos = true}, inbox.Sink()).ok());
  std::thread sleeper([this] { EXPECT_TRUE(engine_->Sleep(kDeadline).ok()); });
  EXPECT_TRUE(
      Eventually([&] { return !engine_->Submit(Endless(1), [](GenerationDelta) {}).ok(); }));
  gate_.Open();
  sleeper.join();
  EXPECT_EQ(inbox.finish(), FinishReason::kLength) << "it was cut short";
  EXPECT_TRUE(engine_->Stats().asleep);
  EXPECT_TRUE(engine_->Drain(kDeadline)) << "there is nothing to wait for";
}

TEST_F(EngineSleepTest, StaysAwakeWhenWhatRunsTakesTooLong) {
  model_->on_forward = [this](const ForwardBatch&) -> Status {
    gate_.Pass();
    return {};
  };
  Start();
  const GenerationRequest request{.prompt = {1}, .max_tokens = 20, .ignore_eos = true};
  Inbox first, second;
  ASSERT_TRUE(engine_->Submit(request, first.Sink()).ok());
  const Status status = engine_->Sleep(std::chrono::milliseconds(0));
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_FALSE(engine_->Stats().asleep);
  ASSERT_TRUE(engine_->Submit(request, second.Sink()).ok());
  gate_.Open();
  EXPECT_EQ(first.AwaitEnd(), FinishReason::kLength);
  EXPECT_EQ(second.AwaitEnd(), FinishReason::kLength);
}

TEST_F(EngineSleepTest, AnEngineThatChoseAnInt8KvCacheWakesWithOne) {
  Start({.kv_memory_bytes = HashModel::kContext * HashModel::kKvBytesPerToken / 2,
         .int8_kv_if_short = true});
  ASSERT_EQ(engine_->Stats().kv_dtype, KvDtype::kInt8);
  ASSERT_TRUE(engine_->Sleep(kDeadline).ok());
  EXPECT_EQ(engine_->Stats().kv_dtype, KvDtype::kInt8);
  auto next = std::make_unique<HashModel>();  // loaded as f16
  const HashModel& view = *next;
  const Status woken = engine_->Wake(std::move(next));
  ASSERT_TRUE(woken.ok()) << woken.error().message;
  EXPECT_EQ(view.info().kv_dtype, KvDtype::kInt8);
}

TEST_F(EngineSleepTest, AnotherModelIsNotWokenWith) {
  Start();
  ASSERT_TRUE(engine_->Sleep(kDeadline).ok());
  const Status status = engine_->Wake(std::make_unique<OtherModel>());
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::kConflict);
  EXPECT_NE(status.error().message.find("vocabulary"), std::string::npos) << status.error().message;
  EXPECT_TRUE(engine_->Stats().asleep);
  EXPECT_TRUE(engine_->Wake(std::make_unique<HashModel>()).ok());
}

}  // namespace
}  // namespace quern
