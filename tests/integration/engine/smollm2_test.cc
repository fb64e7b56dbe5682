// The engine over a real model: a request must get the tokens that it would get alone, whatever
// shares its steps.

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/formats/gguf.h"
#include "runtime/model/model.h"
#include "runtime/tokenizer/tokenizer.h"
#include "tests/support/models.h"

namespace quern {
namespace {

constexpr std::chrono::seconds kDeadline{240};
constexpr int32_t kMaxTokens = 16;

constexpr char kModel[] = "SmolLM2-135M-Instruct.Q4_1.gguf";

struct Generated {
  std::vector<TokenId> tokens;
  std::string text;
  std::optional<FinishReason> finish;
};

// What several requests of one engine produced.
class Results {
 public:
  explicit Results(size_t count) : results_(count) {}

  DeltaSink Sink(size_t index) {
    return [this, index](GenerationDelta delta) {
      const std::lock_guard lock(mutex_);
      Generated& mine = results_[index];
      mine.tokens.insert(mine.tokens.end(), delta.tokens.begin(), delta.tokens.end());
      mine.text += delta.text;
      mine.finish = delta.finish;
      if (mine.finish) ++ended_;
      changed_.notify_all();
    };
  }
  bool AwaitAll() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kDeadline, [this] { return ended_ == results_.size(); });
  }
  const std::vector<Generated>& get() const { return results_; }  // after AwaitAll

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Generated> results_;
  size_t ended_ = 0;
};

// Counts tokens that ran as prefill: more than the prompts have means that some were computed
// again.
class PrefillCounter : public EngineObserver {
 public:
  void OnStep(const StepStats& stats) override { prefill_tokens += stats.prefill_tokens; }
  void OnFirstToken(Seconds, Seconds) override {}
  void OnInterToken(Seconds) override {}
  void OnFinished(const FinishedStats&) override {}
  int64_t prefill_tokens = 0;  // the engine's thread writes; read after it has ended
};

class SmolLM2Engine : public testing::Test {
 protected:
  void SetUp() override {
    QUERN_NEED_MODEL(kModel);
    auto file = GgufFile::Open(test_support::ModelPath(kModel));
    ASSERT_TRUE(file.ok()) << file.error().message;
    auto tokenizer = Tokenizer::FromGguf(**file);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
    tokenizer_ = std::move(*tokenizer);
    std::string lengthy = "A list of numbers in order: ";
    for (int i = 0; i < 60; ++i) lengthy += std::to_string(i) + ", ";
    for (const std::string& text :
         {std::string("The capital of France is"), std::string("def fibonacci(n):\n    "), lengthy,
          std::string("Water boils at"), std::string("Once upon a time")}) {
      prompts_.push_back(tokenizer_->Encode(text).value());
    }
  }

  // Starts a fresh engine; the results of `prompts_` one after another, or all at once.
  std::vector<Generated> Run(EngineOptions options, bool together, float temperature) {
    auto file = GgufFile::Open(test_support::ModelPath(kModel));
    auto model = Model::Load(std::move(*file), {});
    EXPECT_TRUE(model.ok()) << model.error().message;
    const int64_t kv_bytes_per_token = (*model)->info().kv_bytes_per_token;
    options.kv_memory_bytes = kv_tokens_ * kv_bytes_per_token;
    auto engine = EngineCore::Start(std::move(*model), *tokenizer_, options, &counter_);
    EXPECT_TRUE(engine.ok()) << engine.error().message;
    Results results(prompts_.size());
    for (size_t i = 0; i < prompts_.size(); ++i) {
      Results alone(1);
      const auto id = (*engine)->Submit(
          {.prompt = prompts_[i],
           .sampling = {.temperature = temperature, .top_p = 0.95f, .seed = 7 + i},
           .max_tokens = kMaxTokens,
           .ignore_eos = true},
          [&alone, into_alone = alone.Sink(0), into_all = results.Sink(i),
           together](GenerationDelta delta) {
            if (!together) {
              GenerationDelta copy = delta;
              into_all(std::move(copy));
              into_alone(std::move(delta));
            } else {
              into_all(std::move(delta));
            }
          });
      EXPECT_TRUE(id.ok()) << id.error().message;
      if (!together) {
        EXPECT_TRUE(alone.AwaitAll());
      }
    }
    EXPECT_TRUE(results.AwaitAll());
    EXPECT_TRUE((*engine)->Drain(kDeadline));
    EXPECT_EQ((*engine)->Stats().kv_blocks_used, 0);
    return results.get();
  }

  void ExpectSame(const std::vector<Generated>& alone, const std::vector<Generated>& together) {
    for (size_t i = 0; i < prompts_.size(); ++i) {
      EXPECT_EQ(alone[i].tokens, together[i].tokens)
          << "prompt " << i << ": \"" << alone[i].text << "\" alone, \"" << together[i].text
          << "\" in company";
      EXPECT_EQ(together[i].finish, FinishReason::kLength);
    }
  }

  int64_t PromptTokens() const {
    int64_t tokens = 0;
    for (const auto& prompt : prompts_) tokens += static_cast<int64_t>(prompt.size());
    return tokens;
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<std::vector<TokenId>> prompts_;
  PrefillCounter counter_;
  int64_t kv_tokens_ = 2048;
};

TEST_F(SmolLM2Engine, GreedyInABatchWithChunkedPrefillEqualsAlone) {
  const auto alone = Run({}, false, 0);
  EXPECT_NE(alone[0].text.find("Paris"), std::string::npos) << alone[0].text;
  const auto together = Run({.max_sequences = 8, .max_batch_tokens = 48}, true, 0);
  ExpectSame(alone, together);
}

TEST_F(SmolLM2Engine, SampledWithASeedAndPreemptedEqualsAlone) {
  const auto alone = Run({}, false, 0.8f);
  counter_.prefill_tokens = 0;
  // Just enough for the longest prompt: the others must give way and be computed again.
  size_t longest = 0;
  for (const auto& prompt : prompts_) longest = std::max(longest, prompt.size());
  kv_tokens_ = static_cast<int64_t>(longest + kMaxTokens + 16);
  const auto together =
      Run({.max_sequences = 8, .max_batch_tokens = 64, .kv_block_tokens = 4}, true, 0.8f);
  ExpectSame(alone, together);
  EXPECT_GT(counter_.prefill_tokens, PromptTokens()) << "nothing was preempted";
}

}  // namespace
}  // namespace quern
