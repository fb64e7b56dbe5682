// What a long prompt may cost those that stream, and what a tenant's request brings to the
// scheduler.
#include <gtest/gtest.h>

#include <limits>

#include "runtime/engine/step_loop.h"
#include "tests/unit/runtime/engine/byte_tokenizer.h"
#include "tests/unit/runtime/engine/hash_model.h"

namespace quern {
namespace {

class StepRecorder : public EngineObserver {
 public:
  void OnStep(const StepStats& stats) override { steps.push_back(stats); }
  void OnFirstToken(Seconds, Seconds) override {}
  void OnInterToken(Seconds) override {}
  void OnFinished(const FinishedStats&) override {}
  std::vector<StepStats> steps;
};

// A machine that takes 4 ms for a step, and 1 ms more for each of its tokens: as much less as a
// chunk goes through fewer layers.
class PacingTest : public testing::Test {
 protected:
  void Open(double max_decode_slowdown) {
    model_.on_forward = [this](const ForwardBatch& batch) -> Status {
      const auto& last = batch.sequences.back();
      const int32_t chunk = last.num_rows > 1 ? last.num_rows : 0;
      const double part =
          static_cast<double>(std::min(batch.end_layer, HashModel::kLayers) - batch.first_layer) /
          HashModel::kLayers;
      const auto others = static_cast<double>(std::ssize(batch.tokens) - chunk);
      const double milliseconds = 4 + others + part * chunk;
      clock_.Advance(std::chrono::nanoseconds(static_cast<int64_t>(milliseconds * 1e6)));
      return {};
    };
    const EngineOptions options{
        .max_batch_tokens = 256, .max_decode_slowdown = max_decode_slowdown, .prefix_cache = false};
    const KvLayout layout{.block_tokens = 16, .num_blocks = 512};
    ASSERT_TRUE(model_.AllocateKv(layout).ok());
    loop_ = std::make_unique<StepLoop>(model_, tokenizer_, options, layout, &recorder_, clock_);
  }

  void Add(int32_t prompt_tokens, int32_t max_tokens) {
    auto active = std::make_unique<ActiveRequest>(
        GenerationRequest{.prompt = std::vector<TokenId>(static_cast<size_t>(prompt_tokens), 7),
                          .max_tokens = max_tokens,
                          .ignore_eos = true},
        [this](const GenerationDelta& delta) { ended_ += delta.finish ? 1 : 0; }, tokenizer_);
    active->id = next_id_++;
    loop_->Add(std::move(active));
  }

  void Step() {
    std::vector<RequestId> ended;
    loop_->Step();
    loop_->Deliver(ended);
  }

  // Streams that have been going on for a while, in which the loop has seen prompts too. Returns
  // what the steps are that then read a prompt of 1,000 tokens.
  std::vector<StepStats> ReadALongPromptBeside(int streams) {
    for (int i = 0; i < streams; ++i) {
      Add(20 + i, 1500);
      Step();
    }
    for (int i = 0; i < 20; ++i) Step();
    recorder_.steps.clear();
    Add(1000, 1);
    while (ended_ == 0 && recorder_.steps.size() < 1000) Step();
    EXPECT_EQ(ended_, 1) << "its first token";
    return recorder_.steps;
  }

  ByteTokenizer tokenizer_;
  HashModel model_;
  ManualClock clock_;
  StepRecorder recorder_;
  std::unique_ptr<StepLoop> loop_;
  RequestId next_id_ = 1;
  int ended_ = 0;
};

TEST_F(PacingTest, StepsThatReadALongPromptTakeTwiceAsLongAsTheStreamsAlone) {
  Open(2);
  const double alone = 4e-3 + 8 * 1e-3;
  const std::vector<StepStats> steps = ReadALongPromptBeside(8);
  for (const StepStats& step : steps) {
    EXPECT_EQ(step.decode_tokens, 8) << "a stream missed a step";
    EXPECT_LT(step.seconds, 2 * alone);
  }
  EXPECT_GT(steps[0].seconds, 1.7 * alone) << "the prompt has its share of the time";
  const StepTimeCoefficients& fit = loop_->Stats().step_times;
  EXPECT_NEAR(
      fit.Predict({.decode_sequences = 8, .attended_tokens = 8 * 50, .loaded_tokens = 8 * 50}),
      alone, 0.1 * alone);
}

TEST_F(PacingTest, WithoutABoundAPromptFillsTheBatch) {
  Open(0);
  EXPECT_EQ(ReadALongPromptBeside(8)[0].prefill_tokens, 256 - 8);
}

TEST(ActiveRequest, BringsItsTenantsWeightAndTheSumOfBothPriorities) {
  const ByteTokenizer tokenizer;
  const auto made = [&](std::shared_ptr<const Tenant> tenant, int32_t priority) {
    return ActiveRequest(
        {.prompt = {1}, .tenant = std::move(tenant), .priority = priority},
        [](const GenerationDelta&) {}, tokenizer);
  };
  const auto tenant =
      std::make_shared<const Tenant>(Tenant{.name = "acme", .weight = 2.5, .priority = 3});
  EXPECT_EQ(made(tenant, 4).sequence.tenant, "acme");
  EXPECT_EQ(made(tenant, 4).sequence.weight, 2.5);
  EXPECT_EQ(made(tenant, 4).sequence.priority, 7);
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  EXPECT_EQ(made(tenant, kMost).sequence.priority, kMost);
  EXPECT_EQ(made(nullptr, 4).sequence.tenant, "");
  EXPECT_EQ(made(nullptr, 4).sequence.weight, 1);
  EXPECT_EQ(made(nullptr, 4).sequence.priority, 4);
}

TEST(ActiveRequest, HasNoTableOfPenaltiesWhileItWaits) {
  GenerationRequest wanted{.prompt = {1, 2, 3}};
  wanted.sampling.repetition_penalty = 1.5f;
  const ByteTokenizer tokenizer;
  ActiveRequest request(
      std::move(wanted), [](const GenerationDelta&) {}, tokenizer);
  EXPECT_FALSE(request.adjuster.has_value());
  std::vector<float> logits(HashModel::kVocabSize, 1.0f);
  ASSERT_TRUE(TokenPicker(tokenizer).Pick(request, logits, MaskWorker(), 0).ok());
  EXPECT_TRUE(request.adjuster.has_value());
  EXPECT_LT(logits[2], 1.0f) << "of the prompt";
  EXPECT_EQ(logits[4], 1.0f);
}

}  // namespace
}  // namespace quern
