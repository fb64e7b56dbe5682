#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/engine/memory_plan.h"
#include "runtime/formats/gguf.h"
#include "runtime/model/model.h"
#include "runtime/tokenizer/tokenizer.h"
#include "tests/support/models.h"

// What tests of the engine over a real model share.
namespace quern {

inline constexpr std::chrono::seconds kDeadline{240};
inline constexpr int32_t kMaxTokens = 16;

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
  double prefill_tokens = 0;  // the engine's thread writes; read after it has ended
};

// Runs `prompts_` in engines of its model.
class RealEngineTest : public testing::Test {
 protected:
  explicit RealEngineTest(std::string model) : model_(std::move(model)) {}

  void SetUp() override {
    QUERN_NEED_MODEL(model_);
    auto file = GgufFile::Open(test_support::ModelPath(model_));
    ASSERT_TRUE(file.ok()) << file.error().message;
    auto tokenizer = Tokenizer::FromGguf(**file);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
    tokenizer_ = std::move(*tokenizer);
  }

  // Starts a fresh engine with a KV cache of kv_tokens_; the results of `prompts_` one after
  // another, or all at once.
  std::vector<Generated> Run(EngineOptions options, bool together, float temperature) {
    auto file = GgufFile::Open(test_support::ModelPath(model_));
    auto model = Model::Load(std::move(*file), {.kv_dtype = kv_dtype_});
    EXPECT_TRUE(model.ok()) << model.error().message;
    options.kv_memory_bytes =
        KvMemoryFor((*model)->info(), options, kv_tokens_ / options.kv_block_tokens);
    counter_ = {};
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
      if (!id.ok()) {
        ADD_FAILURE() << id.error().message;
        return results.get();
      }
      if (!together) {
        EXPECT_TRUE(alone.AwaitAll());
      }
    }
    EXPECT_TRUE(results.AwaitAll());
    EXPECT_TRUE((*engine)->Drain(kDeadline));
    stats_ = (*engine)->Stats();
    EXPECT_EQ(stats_.kv_blocks_used, 0);
    EXPECT_EQ(stats_.kv_window_blocks_used, 0);
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
  int64_t LongestPrompt() const {
    size_t longest = 0;
    for (const auto& prompt : prompts_) longest = std::max(longest, prompt.size());
    return static_cast<int64_t>(longest);
  }

  const std::string model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<std::vector<TokenId>> prompts_;
  int64_t kv_tokens_ = 2048;
  KvDtype kv_dtype_ = KvDtype::kF16;
  // Of the last Run.
  PrefillCounter counter_;
  EngineStats stats_;
};

}  // namespace quern
