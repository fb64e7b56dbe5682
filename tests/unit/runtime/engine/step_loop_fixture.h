#pragma once

#include <gtest/gtest.h>

#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/engine/step_loop.h"
#include "tests/unit/runtime/engine/byte_tokenizer.h"
#include "tests/unit/runtime/engine/hash_model.h"

namespace quern {

// All that a sink heard of one request.
struct Heard {
  std::string text;
  std::vector<TokenId> tokens;
  std::vector<GeneratedLogprobs> logprobs;
  std::vector<GeneratedLogprobs> prompt_logprobs;
  std::vector<float> embedding;
  std::optional<FinishReason> finish;
  std::string error;
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  int32_t cached_tokens = 0;
  int deltas = 0;
};

// Says the tokens of a script, and dots after it. Prompts end with the byte 0, which the script
// does not use.
inline HashModel::Next Script(std::vector<TokenId> script) {
  return [script](std::span<const TokenId> context) {
    size_t prompt = 0;
    while (context[prompt] != 0) ++prompt;
    const size_t said = context.size() - prompt - 1;
    return said < script.size() ? script[said] : TokenId{'.'};
  };
}

class RecordingObserver : public EngineObserver {
 public:
  void OnStep(const StepStats& stats) override { steps.push_back(stats); }
  void OnFirstToken(Seconds since_submit, Seconds queued) override {
    first_tokens.push_back({since_submit.count(), queued.count()});
  }
  void OnInterToken(Seconds gap) override { gaps.push_back(gap.count()); }
  void OnFinished(const FinishedStats& stats) override { finished.push_back(stats); }
  void OnKvBlocks(const BlockHistory& history) override {
    blocks.evictions.insert(blocks.evictions.end(), history.evictions.begin(),
                            history.evictions.end());
    blocks.reuse_gaps.insert(blocks.reuse_gaps.end(), history.reuse_gaps.begin(),
                             history.reuse_gaps.end());
  }

  std::vector<StepStats> steps;
  std::vector<std::pair<double, double>> first_tokens;
  std::vector<double> gaps;
  std::vector<FinishedStats> finished;
  BlockHistory blocks;
};

class StepLoopTest : public testing::Test {
 protected:
  void Open(int32_t num_blocks, EngineOptions options, HashModel::Next next = HashModel::HashNext) {
    loop_.reset();
    model_ = std::make_unique<HashModel>(std::move(next), window_);
    const KvLayout layout{.block_tokens = options.kv_block_tokens,
                          .num_blocks = num_blocks,
                          .window_blocks = window_blocks_};
    ASSERT_TRUE(model_->AllocateKv(layout).ok());
    loop_ = std::make_unique<StepLoop>(*model_, tokenizer_, options, layout, &observer_, clock_);
  }

  RequestId Add(GenerationRequest request) {
    const RequestId id = next_id_++;
    const uint64_t seed = request.sampling.seed.value_or(id);
    auto active = std::make_unique<ActiveRequest>(
        std::move(request), [this, id](GenerationDelta delta) { Hear(id, std::move(delta)); },
        tokenizer_);
    active->id = id;
    active->seed = seed;
    active->submitted = clock_.Now();
    loop_->Add(std::move(active));
    return id;
  }

  void Hear(RequestId id, GenerationDelta delta) {
    Heard& heard = heard_[id];
    EXPECT_FALSE(heard.finish.has_value()) << "a delta after the last";
    EXPECT_GE(delta.completion_tokens, heard.completion_tokens);
    heard.text += delta.text;
    heard.tokens.insert(heard.tokens.end(), delta.tokens.begin(), delta.tokens.end());
    for (auto& entry : delta.logprobs) {
      EXPECT_LE(entry.text_offset, static_cast<int32_t>(heard.text.size())) << "before its text";
      heard.logprobs.push_back(std::move(entry));
    }
    EXPECT_TRUE(delta.prompt_logprobs.empty() || heard.completion_tokens == 0) << "too late";
    std::move(delta.prompt_logprobs.begin(), delta.prompt_logprobs.end(),
              std::back_inserter(heard.prompt_logprobs));
    if (!delta.embedding.empty()) {
      EXPECT_TRUE(heard.embedding.empty()) << "twice";
      heard.embedding = std::move(delta.embedding);
    }
    heard.finish = delta.finish;
    heard.error = delta.error;
    heard.prompt_tokens = delta.prompt_tokens;
    heard.completion_tokens = delta.completion_tokens;
    heard.cached_tokens = delta.cached_tokens;
    ++heard.deltas;
  }

  void Step() {
    loop_->Step();
    Deliver();
  }
  void Deliver() {
    std::vector<RequestId> ended;
    loop_->Deliver(ended);
    for (const RequestId id : ended) EXPECT_TRUE(heard_[id].finish.has_value());
  }
  void RunToTheEnd() {
    for (int steps = 0; loop_->HasWork(); ++steps) {
      ASSERT_LT(steps, 100000) << "it never ends";
      Step();
    }
    EXPECT_EQ(loop_->Stats().kv_blocks_used, 0);
  }

  static GenerationRequest Greedy(std::vector<TokenId> prompt, int32_t max_tokens) {
    return {.prompt = std::move(prompt), .sampling = {.temperature = 0}, .max_tokens = max_tokens};
  }

  // What the model says after `prompt`, without any engine; ends with the end token if that comes.
  static std::vector<TokenId> Expected(std::vector<TokenId> context, int32_t max_tokens) {
    std::vector<TokenId> out;
    while (static_cast<int32_t>(out.size()) < max_tokens) {
      out.push_back(HashModel::HashNext(context));
      context.push_back(out.back());
      if (out.back() == ByteTokenizer::kEnd) break;
    }
    return out;
  }

  ByteTokenizer tokenizer_;
  int32_t window_ = 0;  // of the model's second layer, and its blocks
  int32_t window_blocks_ = 0;
  ManualClock clock_;
  RecordingObserver observer_;
  std::unique_ptr<HashModel> model_;
  std::unique_ptr<StepLoop> loop_;
  RequestId next_id_ = 1;
  std::map<RequestId, Heard> heard_;
};

}  // namespace quern
