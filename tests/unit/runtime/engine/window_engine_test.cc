// The engine over a model with a layer that sees only its last tokens: the model itself checks that
// every step has what that layer sees, and nothing else.

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/runtime/engine/engine_core_fixture.h"

namespace quern {
namespace {

constexpr int32_t kWindow = 40;
constexpr int32_t kBlockTokens = 16;

class WindowEngine : public EngineCoreTest {
 protected:
  static std::unique_ptr<HashModel> WithWindow() {
    return std::make_unique<HashModel>(HashModel::HashNext, kWindow);
  }
  void SetUp() override {
    model_ = WithWindow();
    model_view_ = model_.get();
  }

  static GenerationRequest Prompt(int32_t tokens, int32_t max_tokens) {
    GenerationRequest request;
    for (int32_t i = 0; i < tokens; ++i) request.prompt.push_back(i * 7 % 250);
    request.sampling.temperature = 0;
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    return request;
  }
  static std::vector<TokenId> Expected(std::vector<TokenId> context, int32_t max_tokens) {
    std::vector<TokenId> out;
    for (int32_t i = 0; i < max_tokens; ++i) {
      out.push_back(HashModel::HashNext(context));
      context.push_back(out.back());
    }
    return out;
  }
  std::vector<TokenId> Run(const GenerationRequest& request) {
    Inbox inbox;
    const auto id = engine_->Submit(request, inbox.Sink());
    EXPECT_TRUE(id.ok());
    EXPECT_EQ(inbox.AwaitEnd(), FinishReason::kLength);
    return inbox.tokens();
  }
};

TEST_F(WindowEngine, ALongSequenceOwnsNoMoreOfTheWindowsBlocksThanItSees) {
  std::atomic<int32_t> most{0};
  model_->on_forward = [&](const ForwardBatch& batch) -> Status {
    for (const auto& sequence : batch.sequences) {
      const auto own = std::count_if(sequence.window_blocks.begin(), sequence.window_blocks.end(),
                                     [](int32_t block) { return block >= 0; });
      most = std::max(most.load(), static_cast<int32_t>(own));
    }
    return {};
  };
  Start({.max_sequences = 2, .max_batch_tokens = 32});
  ASSERT_GT(engine_->Stats().kv_window_blocks_total, 0) << "they have none of their own";
  const GenerationRequest request = Prompt(500, 300);
  EXPECT_EQ(Run(request), Expected(request.prompt, 300));
  // The 39 tokens before a border are in three blocks, and those of a chunk in two.
  EXPECT_EQ(most, 3 + 2);
  EXPECT_EQ(engine_->Stats().kv_window_blocks_used, 0);
}

TEST_F(WindowEngine, ATalkOfManyTurnsIsComputedOnlyWhereItIsNew) {
  Start({.max_sequences = 2, .max_batch_tokens = 32});
  GenerationRequest request = Prompt(300, 37);
  uint64_t hits = 0;
  for (int turn = 0; turn < 6; ++turn) {
    const std::vector<TokenId> answer = Run(request);
    EXPECT_EQ(answer, Expected(request.prompt, 37));
    const uint64_t found = engine_->Stats().prefix_hits_total - hits;
    // All full blocks of what was there: the last token of an answer was never run.
    const size_t before = request.prompt.size() - 5 - 1;
    if (turn > 0) EXPECT_EQ(found, before / kBlockTokens * kBlockTokens) << turn;
    hits += found;
    request.prompt.insert(request.prompt.end(), answer.begin(), answer.end());
    for (TokenId token = 0; token < 5; ++token) request.prompt.push_back(token);
  }
}

TEST_F(WindowEngine, ManyAtOnceGetWhatEachWouldGetAlone) {
  // So few blocks that some are preempted.
  Start({.max_sequences = 6,
         .max_batch_tokens = 37,
         .kv_memory_bytes = 60 * kBlockTokens * HashModel::kKvBytesPerToken});
  ASSERT_GT(engine_->Stats().kv_window_blocks_total, 0);
  std::vector<std::unique_ptr<Inbox>> inboxes;
  std::vector<GenerationRequest> requests;
  for (int32_t i = 0; i < 12; ++i) {
    requests.push_back(Prompt(40 + 23 * i, 150));
    if (i % 3 == 0) requests.back().prompt.front() = 299;
    inboxes.push_back(std::make_unique<Inbox>());
    ASSERT_TRUE(engine_->Submit(requests.back(), inboxes.back()->Sink()).ok());
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(inboxes[i]->AwaitEnd(), FinishReason::kLength);
    EXPECT_EQ(inboxes[i]->tokens(), Expected(requests[i].prompt, 150)) << i;
  }
  EXPECT_GT(engine_->Stats().preemptions_kv_full_total, 0u);
  EXPECT_GT(engine_->Stats().prefix_hits_total, 0u);
}

TEST_F(WindowEngine, WakesUpWithItsWindows) {
  Start({.max_sequences = 2, .max_batch_tokens = 32});
  const GenerationRequest request = Prompt(200, 20);
  const int32_t windows = engine_->Stats().kv_window_blocks_total;
  EXPECT_EQ(Run(request), Expected(request.prompt, 20));
  ASSERT_TRUE(engine_->Sleep(kDeadline).ok());
  EXPECT_EQ(engine_->Stats().kv_window_blocks_total, 0);
  EXPECT_EQ(engine_->Wake(std::make_unique<HashModel>()).error().code, ErrorCode::kConflict);
  ASSERT_TRUE(engine_->Wake(WithWindow()).ok());
  EXPECT_EQ(engine_->Stats().kv_window_blocks_total, windows);
  EXPECT_EQ(Run(request), Expected(request.prompt, 20));
  EXPECT_EQ(engine_->Stats().prefix_hits_total, 0u) << "what was kept is gone";
}

}  // namespace
}  // namespace quern
