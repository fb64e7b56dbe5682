// The engine on the device: requests of all kinds in one batch, each as it would be alone, and as
// it would be without the device's drawing of tokens.

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <random>
#include <vector>

#include "tests/unit/runtime/backend/cuda/cuda_models.h"
#include "tests/unit/runtime/backend/cuda/device_limit.h"
#include "tests/unit/runtime/engine/byte_tokenizer.h"
#include "tests/unit/runtime/engine/inbox.h"

namespace quern::testing {
namespace {

// A model that counts what it is asked for, and says that it does not draw where it is not to.
class CountingModel : public Model {
 public:
  struct Counts {
    size_t read = 0, drawn = 0, mixed_steps = 0;
  };
  CountingModel(std::unique_ptr<Model> model, bool draws, Counts* counts)
      : model_(std::move(model)), draws_(draws), counts_(*counts) {}

  const ModelInfo& info() const override { return model_->info(); }
  Result<std::optional<BackendMemory>> device_memory() const override {
    return model_->device_memory();
  }
  void SetKvDtype(KvDtype dtype) override { model_->SetKvDtype(dtype); }
  Status AllocateKv(const KvLayout& layout) override { return model_->AllocateKv(layout); }
  Status Forward(const ForwardBatch& batch, std::span<float> logits) override {
    counts_.read += batch.logit_rows.size();
    reads_ = !batch.logit_rows.empty();
    return model_->Forward(batch, logits);
  }
  Status ReadLogits(std::span<const int32_t> rows, std::span<float> logits) override {
    return model_->ReadLogits(rows, logits);
  }
  bool draws() const override { return draws_ && model_->draws(); }
  Status Draw(std::span<const int32_t> rows, std::span<const TokenDraw> draws,
              std::span<int32_t> tokens) override {
    counts_.drawn += rows.size();
    if (reads_) ++counts_.mixed_steps;
    return model_->Draw(rows, draws, tokens);
  }
  Status ReadHidden(std::span<const int32_t> rows, std::span<float> hidden) override {
    return model_->ReadHidden(rows, hidden);
  }

 private:
  std::unique_ptr<Model> model_;
  const bool draws_;
  Counts& counts_;
  bool reads_ = false;
};

constexpr int32_t kTokens = 8;  // of each answer

class CudaServing : public ::testing::Test {
 protected:
  using Counts = CountingModel::Counts;

  void SetUp() override {
    seed_ = std::random_device{}();
    random_.seed(seed_);
    const std::vector<SamplingParams> kinds = {
        {.temperature = 0},
        {.temperature = 0.8f, .seed = random_()},
        {.temperature = 0, .logit_bias = {{97, 2.5f}, {98, -3.0f}}},
        {.temperature = 1.2f, .top_p = 0.9f, .top_k = 30, .min_p = 0.01f, .seed = random_()},
        {.temperature = 0},                        // with log-probabilities
        {.temperature = 0.9f, .seed = random_()},  // with log-probabilities
        {.temperature = 0, .frequency_penalty = 1.5f},
        {.temperature = 1, .top_p = 0.7f, .seed = random_()}};
    for (size_t i = 0; i < kinds.size(); ++i) {
      GenerationRequest request{.sampling = kinds[i], .max_tokens = kTokens, .ignore_eos = true};
      request.prompt = RandomTokens(random_, 8 + static_cast<int>(random_() % 20), 256);
      if (i == 4 || i == 5) request.top_logprobs = 3;
      requests_.push_back(std::move(request));
    }
  }
  static std::unique_ptr<Model> LoadServed(bool draws, Counts* counts) {
    TinyModel tiny = SmallModel();
    tiny.vocab = 264;
    return std::make_unique<CountingModel>(LoadOnCuda(tiny).model, draws, counts);
  }
  // Of an engine that never cuts a prompt, nor finds a part of it: in a rest of four tokens or less
  // the bits are others.
  std::unique_ptr<EngineCore> Start(bool draws, Counts* counts) {
    auto engine = EngineCore::Start(LoadServed(draws, counts), tokenizer_,
                                    {.max_sequences = 16,
                                     .max_batch_tokens = 512,
                                     .max_decode_slowdown = 0,
                                     .kv_memory_bytes = 1 << 20,
                                     .prefix_cache = false},
                                    nullptr);
    EXPECT_TRUE(engine.ok()) << engine.error().message;
    return engine.ok() ? std::move(*engine) : nullptr;
  }
  static void Submit(EngineCore& engine, const GenerationRequest& request, Inbox* answer) {
    const auto id = engine.Submit(request, answer->Sink());
    ASSERT_TRUE(id.ok()) << id.error().message;
  }
  void Together(EngineCore& engine, std::deque<Inbox>* answers) {
    answers->resize(requests_.size());
    for (size_t i = 0; i < requests_.size(); ++i) Submit(engine, requests_[i], &(*answers)[i]);
    for (Inbox& answer : *answers) ASSERT_EQ(answer.AwaitEnd(), FinishReason::kLength);
  }

  uint32_t seed_ = 0;
  std::mt19937 random_;
  ByteTokenizer tokenizer_;
  std::vector<GenerationRequest> requests_;
};

TEST_F(CudaServing, ARequestGetsWhatItGetsAloneAndWithoutDrawing) {
  SCOPED_TRACE("seed " + std::to_string(seed_));
  Counts counts, read_counts;
  std::deque<Inbox> together, alone(requests_.size()), read;
  const auto engine = Start(true, &counts);
  ASSERT_TRUE(engine);
  ASSERT_NO_FATAL_FAILURE(Together(*engine, &together));
  EXPECT_GT(counts.mixed_steps, 0u) << "drawn and read in one batch";
  EXPECT_EQ(counts.drawn, size_t{4 * kTokens});
  EXPECT_EQ(counts.read, size_t{4 * kTokens});
  for (size_t i = 0; i < requests_.size(); ++i) {
    SCOPED_TRACE("request " + std::to_string(i));
    ASSERT_NO_FATAL_FAILURE(Submit(*engine, requests_[i], &alone[i]));
    ASSERT_EQ(alone[i].AwaitEnd(), FinishReason::kLength);
    EXPECT_EQ(alone[i].tokens(), together[i].tokens());
  }
  const auto reading = Start(false, &read_counts);
  ASSERT_TRUE(reading);
  ASSERT_NO_FATAL_FAILURE(Together(*reading, &read));
  EXPECT_EQ(read_counts.drawn, 0u);
  for (size_t i = 0; i < requests_.size(); ++i) {
    SCOPED_TRACE("request " + std::to_string(i));
    ASSERT_EQ(together[i].tokens().size(), size_t{kTokens});
    // The last draws in another way where top_p alone cuts.
    if (i + 1 < requests_.size()) {
      EXPECT_EQ(read[i].tokens(), together[i].tokens());
    }
    ASSERT_EQ(together[i].logprobs().size(), requests_[i].top_logprobs ? size_t{kTokens} : 0u);
    for (size_t t = 0; t < together[i].logprobs().size(); ++t) {
      const GeneratedLogprobs of = together[i].logprobs()[t];
      EXPECT_EQ(of.token.token, together[i].tokens()[t]);
      EXPECT_EQ(of.token.logprob, alone[i].logprobs()[t].token.logprob);
      EXPECT_EQ(of.token.logprob, read[i].logprobs()[t].token.logprob);
      EXPECT_EQ(of.top.size(), 3u);
    }
  }
  // The bias and the penalty show.
  EXPECT_NE(together[1].tokens(), together[0].tokens());
}

// The same prompt and the same sampling, with log-probabilities and without: read and drawn.
TEST_F(CudaServing, LogprobsDoNotChangeTheTextBesideOneWithout) {
  SCOPED_TRACE("seed " + std::to_string(seed_));
  Counts counts;
  const auto engine = Start(true, &counts);
  ASSERT_TRUE(engine);
  requests_.resize(2);
  for (size_t i = 0; i < 2; ++i) {
    requests_.push_back(requests_[i]);
    requests_.back().top_logprobs = 1;
  }
  std::deque<Inbox> answers;
  ASSERT_NO_FATAL_FAILURE(Together(*engine, &answers));
  EXPECT_GT(counts.mixed_steps, 0u);
  EXPECT_EQ(answers[2].tokens(), answers[0].tokens());
  EXPECT_EQ(answers[3].tokens(), answers[1].tokens());
}

TEST_F(CudaServing, AsleepItHoldsNothingOfTheDevice) {
  SCOPED_TRACE("seed " + std::to_string(seed_));
  const DeviceLimit limit;
  Counts counts;
  const auto engine = Start(true, &counts);
  ASSERT_TRUE(engine);
  requests_.resize(2);
  std::deque<Inbox> before, after;
  ASSERT_NO_FATAL_FAILURE(Together(*engine, &before));
  EXPECT_GT(limit.used(), size_t{1} << 20) << "weights and the KV cache";
  const Status asleep = engine->Sleep(kDeadline);
  ASSERT_TRUE(asleep.ok()) << asleep.error().message;
  EXPECT_EQ(limit.used(), 0u);
  const Status awake = engine->Wake(LoadServed(true, &counts));
  ASSERT_TRUE(awake.ok()) << awake.error().message;
  ASSERT_NO_FATAL_FAILURE(Together(*engine, &after));
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(after[i].tokens(), before[i].tokens());
}

}  // namespace
}  // namespace quern::testing
