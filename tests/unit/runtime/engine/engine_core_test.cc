// The engine with its thread. Run under ThreadSanitizer as well.

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "tests/unit/runtime/engine/engine_core_fixture.h"

namespace quern {
namespace {

TEST_F(EngineCoreTest, ATenantsOwnLimitRefusesItAloneAndUntilOneOfItsRequestsEnds) {
  model_->on_forward = [this](const ForwardBatch&) -> Status {
    gate_.Pass();
    return {};
  };
  Start();
  const auto tenant = std::make_shared<const Tenant>(Tenant{.name = "acme", .max_requests = 2});
  Inbox first, second, other, later;
  const auto submit = [&](std::shared_ptr<const Tenant> who, Inbox& inbox) {
    return engine_->Submit(
        {.prompt = {5}, .max_tokens = 2, .ignore_eos = true, .tenant = std::move(who)},
        inbox.Sink());
  };
  ASSERT_TRUE(submit(tenant, first).ok());
  ASSERT_TRUE(submit(tenant, second).ok());
  const auto refused = submit(tenant, later);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kPermissionDenied);
  EXPECT_EQ(refused.error().message,
            "2 requests of 'acme' are running or waiting, which is its limit; try again when one "
            "has ended");
  ASSERT_TRUE(submit(nullptr, other).ok());
  gate_.Open();
  EXPECT_EQ(first.AwaitEnd(), FinishReason::kLength);
  EXPECT_EQ(second.AwaitEnd(), FinishReason::kLength);
  EXPECT_EQ(other.AwaitEnd(), FinishReason::kLength);
  ASSERT_TRUE(Eventually([&] { return submit(tenant, later).ok(); }));
  EXPECT_EQ(later.AwaitEnd(), FinishReason::kLength);
}

TEST_F(EngineCoreTest, TenantsWithoutALimitOfTheirOwnAlwaysLeaveRoomForAnother) {
  model_->on_forward = [this](const ForwardBatch&) -> Status {
    gate_.Pass();
    return {};
  };
  Start({.max_sequences = 2, .max_waiting = 4});
  const auto tenant = [](const char* name) {
    return std::make_shared<const Tenant>(Tenant{.name = name});
  };
  EXPECT_EQ(engine_->max_requests(tenant("flood").get()), 3);
  EXPECT_EQ(engine_->max_requests(nullptr), 6);
  std::deque<Inbox> inboxes;
  const auto taken = [&](const char* name) {
    int count = 0;
    for (; count < 10; ++count) {
      const auto id = engine_->Submit(
          {.prompt = {5}, .max_tokens = 2, .ignore_eos = true, .tenant = tenant(name)},
          inboxes.emplace_back().Sink());
      if (id.ok()) continue;
      inboxes.pop_back();
      EXPECT_EQ(id.error().code, ErrorCode::kPermissionDenied) << id.error().message;
      break;
    }
    return count;
  };
  EXPECT_EQ(taken("flood"), 3);
  EXPECT_EQ(taken("another"), 2);
  EXPECT_TRUE(
      engine_
          ->Submit({.prompt = {5}, .max_tokens = 2, .ignore_eos = true, .tenant = tenant("third")},
                   inboxes.emplace_back().Sink())
          .ok());
  gate_.Open();
  for (Inbox& inbox : inboxes) EXPECT_EQ(inbox.AwaitEnd(), FinishReason::kLength);
}

TEST_F(EngineCoreTest, AnswersARequestAndIsEmptyAfterIt) {
  Start();
  Inbox inbox;
  ASSERT_TRUE(
      engine_->Submit({.prompt = {1, 2}, .max_tokens = 7, .ignore_eos = true}, inbox.Sink()).ok());
  EXPECT_EQ(inbox.AwaitEnd(), FinishReason::kLength);
  EXPECT_EQ(inbox.tokens().size(), 7u);
  const EngineStats stats = engine_->Stats();
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_EQ(stats.kv_blocks_used, 0) << "who sees the end also sees the blocks free";
  EXPECT_EQ(stats.kv_blocks_total, kBlocks);
  EXPECT_EQ(stats.prompt_tokens_total, 2u);
  EXPECT_EQ(stats.generated_tokens_total, 7u);
  EXPECT_NEAR(stats.tokens_per_second, 7.0, 1e-9);
}

TEST_F(EngineCoreTest, RefusesARequestThatCannotRun) {
  Start({.max_context_tokens = 100});
  EXPECT_EQ(engine_->max_context_tokens(), 100);
  const auto result = engine_->Submit({.prompt = {1}, .max_tokens = 100}, [](GenerationDelta) {});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(EngineCoreTest, DoesNotStartWithATokenizerThatDoesNotBelongToTheModel) {
  class Larger : public ByteTokenizer {
    int vocab_size() const override { return HashModel::kVocabSize + 1; }
  };
  const Larger larger;
  const auto engine =
      EngineCore::Start(std::move(model_), larger, {.kv_memory_bytes = 1 << 20}, nullptr);
  ASSERT_FALSE(engine.ok());
  EXPECT_EQ(engine.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(EngineCoreTest, TakesAnInt8KvCacheOnlyWhereItMayAndTheContextDoesNotFitOtherwise) {
  constexpr int64_t kWhole = HashModel::kContext * HashModel::kKvBytesPerToken;
  const auto start = [&](int64_t kv_memory, bool may) {
    auto engine =
        EngineCore::Start(std::make_unique<HashModel>(), tokenizer_,
                          {.kv_memory_bytes = kv_memory, .int8_kv_if_short = may}, nullptr);
    EXPECT_TRUE(engine.ok()) << engine.error().message;
    return std::move(engine).value();
  };
  const auto fits = start(kWhole, true);
  EXPECT_EQ(fits->Stats().kv_dtype, KvDtype::kF16);
  EXPECT_EQ(fits->max_context_tokens(), HashModel::kContext);
  const auto chosen = start(kWhole / 2, true);
  EXPECT_EQ(chosen->Stats().kv_dtype, KvDtype::kInt8);
  EXPECT_EQ(chosen->max_context_tokens(), HashModel::kContext);
  const auto fixed = start(kWhole / 2, false);
  EXPECT_EQ(fixed->Stats().kv_dtype, KvDtype::kF16);
  EXPECT_EQ(fixed->max_context_tokens(), HashModel::kContext / 2);
}

TEST_F(EngineCoreTest, CancelEndsARunningRequestWithinOneStep) {
  model_->on_forward = [this](const ForwardBatch&) -> Status {
    gate_.Pass();
    return {};
  };
  Start();
  Inbox inbox;
  const auto id = engine_->Submit(Endless(1), inbox.Sink());
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(gate_.AwaitArrival());  // the first step is under way
  engine_->Cancel(*id);
  gate_.Open();
  EXPECT_EQ(inbox.AwaitEnd(), FinishReason::kCancelled);
  EXPECT_EQ(inbox.tokens().size(), 1u) << "only the step that was under way";
  EXPECT_EQ(model_view_->forwards(), 1);
  EXPECT_EQ(engine_->Stats().kv_blocks_used, 0);
  engine_->Cancel(*id);
  engine_->Cancel(12345);
}

TEST_F(EngineCoreTest, RefusesBeyondTheWaitingLimitAndTakesMoreLater) {
  model_->on_forward = [this](const ForwardBatch&) -> Status {
    gate_.Pass();
    return {};
  };
  Start({.max_sequences = 2, .max_waiting = 3});
  std::vector<std::unique_ptr<Inbox>> inboxes;
  const auto submit = [&] {
    inboxes.push_back(std::make_unique<Inbox>());
    return engine_->Submit({.prompt = {5}, .max_tokens = 2, .ignore_eos = true},
                           inboxes.back()->Sink());
  };
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(submit().ok());
  const auto refused = submit();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  inboxes.pop_back();
  gate_.Open();
  for (const auto& inbox : inboxes) EXPECT_EQ(inbox->AwaitEnd(), FinishReason::kLength);
  EXPECT_TRUE(Eventually([&] { return submit().ok(); }));
  EXPECT_TRUE(engine_->Drain(kDeadline));
}

TEST_F(EngineCoreTest, DrainLetsRunningRequestsFinishAndRefusesNewOnes) {
  Start();
  std::vector<Inbox> inboxes(8);
  for (TokenId i = 0; i < 8; ++i) {
    ASSERT_TRUE(engine_
                    ->Submit({.prompt = {i}, .max_tokens = 50, .ignore_eos = true},
                             inboxes[static_cast<size_t>(i)].Sink())
                    .ok());
  }
  EXPECT_TRUE(engine_->Drain(kDeadline));
  for (Inbox& inbox : inboxes) {
    EXPECT_EQ(inbox.finish(), FinishReason::kLength) << "it was cut short";
    EXPECT_EQ(inbox.tokens().size(), 50u);
  }
  const auto refused = engine_->Submit(Endless(1), [](GenerationDelta) {});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
}

TEST_F(EngineCoreTest, DrainCancelsWhatIsLeftWhenTimeIsOver) {
  model_->on_forward = [this](const ForwardBatch&) -> Status {
    gate_.Pass();
    return {};
  };
  Start({.max_batch_tokens = 32});
  std::vector<Inbox> inboxes(40);
  for (TokenId i = 0; i < 40; ++i) {
    ASSERT_TRUE(engine_->Submit(Endless(i), inboxes[static_cast<size_t>(i)].Sink()).ok());
  }
  // The first step ends only once the drain has begun; more than a thousand would be needed to
  // finish all.
  std::thread opener([this] {
    EXPECT_TRUE(
        Eventually([&] { return !engine_->Submit(Endless(1), [](GenerationDelta) {}).ok(); }));
    gate_.Open();
  });
  EXPECT_FALSE(engine_->Drain(std::chrono::milliseconds(0)));
  opener.join();
  for (Inbox& inbox : inboxes) EXPECT_EQ(inbox.finish(), FinishReason::kCancelled);
  EXPECT_EQ(engine_->Stats().kv_blocks_used, 0);
}

TEST_F(EngineCoreTest, DestructionCancelsWhatIsLeft) {
  // The first step begins when all have been submitted, and lasts until the engine has been told to
  // stop, which Submit then says.
  EngineCore* engine = nullptr;
  model_->on_forward = [this, &engine](const ForwardBatch&) -> Status {
    gate_.Pass();
    EXPECT_TRUE(Eventually([&] {
      const auto refused = engine->Submit(Endless(1), [](GenerationDelta) {});
      return !refused.ok() && refused.error().code == ErrorCode::kUnavailable;
    }));
    return {};
  };
  Start();
  engine = engine_.get();
  std::vector<Inbox> inboxes(5);
  for (TokenId i = 0; i < 5; ++i) {
    EXPECT_TRUE(engine_->Submit(Endless(i), inboxes[static_cast<size_t>(i)].Sink()).ok());
  }
  gate_.Open();
  engine_.reset();
  for (Inbox& inbox : inboxes) EXPECT_EQ(inbox.finish(), FinishReason::kCancelled);
}

TEST_F(EngineCoreTest, StalledForIsZeroWhenIdleAndGrowsWhileAStepHangs) {
  model_->on_forward = [this](const ForwardBatch&) -> Status {
    gate_.Pass();
    return {};
  };
  Start();
  clock_.Advance(std::chrono::hours(5));
  EXPECT_EQ(engine_->StalledFor(), Seconds(0)) << "idle for hours is no stall";
  Inbox inbox;
  ASSERT_TRUE(
      engine_->Submit({.prompt = {1}, .max_tokens = 2, .ignore_eos = true}, inbox.Sink()).ok());
  ASSERT_TRUE(gate_.AwaitArrival());
  EXPECT_EQ(engine_->StalledFor(), Seconds(0));
  clock_.Advance(std::chrono::seconds(30));
  EXPECT_EQ(engine_->StalledFor(), Seconds(30));
  gate_.Open();
  inbox.AwaitEnd();
  EXPECT_TRUE(Eventually([&] { return engine_->StalledFor() == Seconds(0); }));
}

TEST_F(EngineCoreTest, AnIdleEngineDoesNothing) {
  Start();
  Inbox inbox;
  ASSERT_TRUE(engine_->Submit({.prompt = {1}, .max_tokens = 2}, inbox.Sink()).ok());
  inbox.AwaitEnd();
  ASSERT_TRUE(engine_->Drain(kDeadline));  // its last step is over
  const int64_t reads = clock_.reads();
  const int64_t forwards = model_view_->forwards();
  // Meanwhile another engine has much to do: a loop that spun would have read the clock many times.
  HashModel* other = new HashModel();
  auto busy = EngineCore::Start(std::unique_ptr<Model>(other), tokenizer_,
                                {.kv_memory_bytes = 1 << 20}, nullptr);
  ASSERT_TRUE(busy.ok());
  Inbox busy_inbox;
  ASSERT_TRUE((*busy)->Submit(Endless(1), busy_inbox.Sink()).ok());
  busy_inbox.AwaitEnd();
  EXPECT_LE(clock_.reads(), reads + 1) << "at most the end of the last iteration";
  EXPECT_EQ(model_view_->forwards(), forwards);
}

TEST_F(EngineCoreTest, ASinkMaySubmitCancelAndAskForFigures) {
  Start();
  Inbox second;
  std::atomic<bool> asked{false};
  ASSERT_TRUE(engine_
                  ->Submit({.prompt = {1}, .max_tokens = 1, .ignore_eos = true},
                           [&](GenerationDelta delta) {
                             if (!delta.finish) return;
                             engine_->Cancel(77);
                             asked = engine_->Stats().kv_blocks_total == kBlocks &&
                                     engine_->StalledFor() == Seconds(0);
                             EXPECT_TRUE(
                                 engine_
                                     ->Submit({.prompt = {2}, .max_tokens = 3, .ignore_eos = true},
                                              second.Sink())
                                     .ok());
                           })
                  .ok());
  EXPECT_EQ(second.AwaitEnd(), FinishReason::kLength);
  EXPECT_TRUE(asked);
}

TEST_F(EngineCoreTest, ManyThreadsSubmittingAndCancellingGetTheirOwnTokensEach) {
  Start({.max_sequences = 6, .max_batch_tokens = 16, .kv_block_tokens = 4});
  constexpr int kThreads = 4;
  constexpr int kEach = 40;
  std::atomic<int> finished{0}, cancelled{0}, refused{0};
  std::vector<std::thread> clients;
  for (int t = 0; t < kThreads; ++t) {
    clients.emplace_back([&, t] {
      std::mt19937 random(static_cast<uint32_t>(t));
      for (int i = 0; i < kEach; ++i) {
        std::vector<TokenId> prompt(1 + random() % 30);
        for (TokenId& token : prompt) token = static_cast<TokenId>(random() % 256);
        const auto max_tokens = static_cast<int32_t>(1 + random() % 40);
        Inbox inbox;
        const auto id = engine_->Submit({.prompt = prompt,
                                         .sampling = {.temperature = 0},
                                         .max_tokens = max_tokens,
                                         .ignore_eos = true},
                                        inbox.Sink());
        if (!id.ok()) {
          ++refused;
          continue;
        }
        if (random() % 3 == 0) {
          inbox.AwaitTokens(random() % 3);
          engine_->Cancel(*id);
        }
        static_cast<void>(engine_->Stats());
        const auto finish = inbox.AwaitEnd();
        ASSERT_TRUE(finish.has_value());
        const auto tokens = inbox.tokens();
        std::vector<TokenId> context = prompt;
        for (const TokenId token : tokens) {
          ASSERT_EQ(token, HashModel::HashNext(context));
          context.push_back(token);
        }
        if (*finish == FinishReason::kLength) {
          ASSERT_EQ(static_cast<int32_t>(tokens.size()), max_tokens);
          ++finished;
        } else {
          ASSERT_EQ(*finish, FinishReason::kCancelled);
          ++cancelled;
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(finished + cancelled + refused, kThreads * kEach);
  EXPECT_GT(finished, 50);
  EXPECT_TRUE(engine_->Drain(kDeadline));
  EXPECT_EQ(engine_->Stats().kv_blocks_used, 0);
}

TEST_F(EngineCoreTest, RequestsWithoutASeedDrawDifferently) {
  model_->confidence = 0;
  Start();
  std::vector<Inbox> inboxes(2);
  for (Inbox& inbox : inboxes) {
    ASSERT_TRUE(
        engine_->Submit({.prompt = {1}, .max_tokens = 30, .ignore_eos = true}, inbox.Sink()).ok());
  }
  for (Inbox& inbox : inboxes) inbox.AwaitEnd();
  EXPECT_NE(inboxes[0].tokens(), inboxes[1].tokens());
}

TEST_F(EngineCoreTest, TheSameSeedGivesTheSameTokensWhateverElseIsInTheBatch) {
  model_->confidence = 0;
  Start();
  const GenerationRequest request{.prompt = {9, 8, 7},
                                  .sampling = {.temperature = 1.2f, .seed = 5},
                                  .max_tokens = 40,
                                  .ignore_eos = true};
  Inbox alone;
  ASSERT_TRUE(engine_->Submit(request, alone.Sink()).ok());
  alone.AwaitEnd();
  std::vector<Inbox> others(10);
  Inbox among;
  for (size_t i = 0; i < others.size(); ++i) {
    if (i == 5) {
      ASSERT_TRUE(engine_->Submit(request, among.Sink()).ok());
    }
    GenerationRequest other = request;
    other.sampling.seed = i + 100;
    ASSERT_TRUE(engine_->Submit(other, others[i].Sink()).ok());
  }
  among.AwaitEnd();
  EXPECT_EQ(among.tokens(), alone.tokens());
  EXPECT_TRUE(engine_->Drain(kDeadline));
}

}  // namespace
}  // namespace quern
