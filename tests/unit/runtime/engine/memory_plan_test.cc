#include "runtime/engine/memory_plan.h"

#include <gtest/gtest.h>

#include "runtime/kv_cache/window_blocks.h"

namespace quern {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;

ModelInfo SmallModel() {
  return {.vocab_size = 49152,
          .context_tokens = 8192,
          .weight_bytes = 100 * kMiB,
          .kv_bytes_per_token = 16384};
}

ProcessMemory Cgroup(int64_t limit) {
  return {.limit_bytes = limit,
          .limited_by_cgroup = true,
          .available_bytes = 64 * kGiB,
          .resident_bytes = 150 * kMiB};
}

TEST(PlanMemory, TakesTheKvMemoryAskedForInWholeBlocks) {
  const auto plan = PlanMemory(
      SmallModel(), {.kv_memory_bytes = 256 * kMiB + 100, .kv_block_tokens = 16}, Cgroup(2 * kGiB));
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->kv_tokens, 16384);
  EXPECT_EQ(plan->layout.num_blocks, 1024);
  EXPECT_EQ(plan->kv_bytes, 256 * kMiB);
  EXPECT_EQ(plan->context_tokens, 8192);
}

TEST(PlanMemory, ChosenByItselfEverythingStaysBelowTheCgroupsLimit) {
  for (const int64_t limit : {400 * kMiB, 512 * kMiB, kGiB, 2 * kGiB}) {
    const auto plan = PlanMemory(SmallModel(), {}, Cgroup(limit));
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    EXPECT_LE(150 * kMiB + plan->kv_bytes + plan->logit_bytes + plan->reserve_bytes, limit);
    EXPECT_GT(plan->kv_tokens, 512);
    EXPECT_LE(plan->context_tokens, plan->kv_tokens);
  }
}

TEST(PlanMemory, ChosenByItselfTakesNoMoreThanAllSequencesCanUse) {
  const auto plan = PlanMemory(SmallModel(), {.max_sequences = 2}, Cgroup(60 * kGiB));
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->kv_tokens, 2 * (8192 + 16));
}

TEST(PlanMemory, WithoutALimitOfItsOwnLeavesHalfOfWhatTheMachineHasFree) {
  ProcessMemory memory{
      .limit_bytes = 16 * kGiB, .available_bytes = 2 * kGiB, .resident_bytes = 150 * kMiB};
  const auto plan = PlanMemory(SmallModel(), {}, memory);
  ASSERT_TRUE(plan.ok());
  EXPECT_LE(plan->kv_bytes, kGiB);
}

TEST(PlanMemory, AShorterKvCacheThanTheModelsContextShortensTheContext) {
  const auto plan = PlanMemory(SmallModel(), {.kv_memory_bytes = 16 * kMiB}, Cgroup(kGiB));
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->kv_tokens, 1024);
  EXPECT_EQ(plan->context_tokens, 1024);
}

TEST(PlanMemory, RefusesAContextThatTheKvCacheCannotHold) {
  const auto plan = PlanMemory(
      SmallModel(), {.max_context_tokens = 4096, .kv_memory_bytes = 16 * kMiB}, Cgroup(kGiB));
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(plan.error().message,
            "a context of 4096 tokens does not fit a KV cache of 1024 tokens (16 MiB); give more "
            "KV memory (64 MiB "
            "at least) or a shorter context");
}

TEST(PlanMemory, RefusesWhenWeightsLeaveNoRoomAndSaysWhatTakesIt) {
  const auto plan = PlanMemory(SmallModel(), {}, Cgroup(200 * kMiB));
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(plan.error().message.find("weights take 100 MiB"), std::string::npos)
      << plan.error().message;
  EXPECT_NE(plan.error().message.find("200 MiB (cgroup limit)"), std::string::npos)
      << plan.error().message;
}

TEST(PlanMemory, RefusesKvMemoryBeyondTheLimitRatherThanBeKilledLater) {
  const auto plan = PlanMemory(SmallModel(), {.kv_memory_bytes = 900 * kMiB}, Cgroup(kGiB));
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(plan.error().message.find("900 MiB"), std::string::npos);
}

TEST(PlanMemory, RefusesOptionsOutOfRangeByName) {
  const auto error = [](EngineOptions options) {
    const auto plan = PlanMemory(SmallModel(), options, Cgroup(2 * kGiB));
    EXPECT_FALSE(plan.ok());
    return plan.ok() ? std::string() : plan.error().message;
  };
  EXPECT_NE(error({.max_sequences = 0}).find("max_sequences is 0"), std::string::npos);
  EXPECT_NE(error({.max_sequences = 600}).find("max_batch_tokens is 512; it must be between 600"),
            std::string::npos)
      << "every decode needs its token in the step";
  EXPECT_NE(error({.max_context_tokens = 10000}).find("max_context_tokens is 10000"),
            std::string::npos);
  EXPECT_NE(error({.kv_memory_bytes = -1}).find("kv_memory_bytes"), std::string::npos);
  EXPECT_NE(error({.kv_block_tokens = 0}).find("kv_block_tokens"), std::string::npos);
  EXPECT_NE(error({.kv_memory_bytes = 1000}).find("holds no block"), std::string::npos);
}

TEST(WhyContextDoesNotFit, IsEmptyWhereTheContextFitsAndSaysWhatIsMissingElsewhere) {
  EXPECT_EQ(WhyContextDoesNotFit(SmallModel(), {.kv_memory_bytes = 128 * kMiB}, Cgroup(kGiB)), "");
  EXPECT_EQ(WhyContextDoesNotFit(SmallModel(), {.kv_memory_bytes = 127 * kMiB}, Cgroup(kGiB)),
            "a context of 8,192 tokens takes 128 MiB in f16, and there are 127 MiB");
  EXPECT_EQ(
      WhyContextDoesNotFit(
          SmallModel(), {.max_context_tokens = 4096, .kv_memory_bytes = 127 * kMiB}, Cgroup(kGiB)),
      "")
      << "a shorter one was asked for";
  EXPECT_NE(
      WhyContextDoesNotFit(
          SmallModel(), {.max_context_tokens = 8192, .kv_memory_bytes = 127 * kMiB}, Cgroup(kGiB)),
      "");
}

TEST(WhyContextDoesNotFit, LeavesWrongOptionsToPlanMemory) {
  EXPECT_EQ(WhyContextDoesNotFit(SmallModel(), {.max_sequences = 0}, Cgroup(kGiB)), "");
}

TEST(PlanMemory, DescribesItselfInOneLine) {
  const auto memory = Cgroup(4 * kGiB);
  const auto plan = PlanMemory(SmallModel(), {.kv_memory_bytes = kGiB + kGiB / 2}, memory);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->Describe(memory),
            "weights 100 MiB, KV 1.5 GiB = 98,304 tokens (6,144 blocks of 16), logits 6 MiB, "
            "reserve 333 MiB, context "
            "8,192 tokens; 1.9 GiB of 4.0 GiB (cgroup limit)");
}

// 15 of 18 layers see 512 tokens, as Gemma 3's 270M model has them.
ModelInfo WindowModel() {
  return {.vocab_size = 1000,
          .context_tokens = 32768,
          .weight_bytes = 100 * kMiB,
          .kv_bytes_per_token = 18 * 1024,
          .layers = 18,
          .window_layers = 15,
          .window_tokens = 512,
          .kv_window_bytes_per_token = 15 * 1024};
}

TEST(PlanMemoryWithWindows, GivesTheirLayersWhatAllSequencesCanOwnAndAPartForThePrefixCache) {
  const auto plan = PlanMemory(WindowModel(), {.kv_memory_bytes = kGiB}, Cgroup(4 * kGiB));
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  const int64_t blocks = plan->layout.num_blocks, windows = plan->layout.window_blocks;
  EXPECT_EQ(windows, WindowBlocksInUse(32, 16, 32, 512) + blocks / 8);
  EXPECT_EQ(plan->kv_bytes, (blocks * 3 + windows * 15) * 16 * 1024);
  EXPECT_LE(plan->kv_bytes, kGiB);
  EXPECT_GT(plan->kv_bytes, kGiB - 18 * 16 * 1024) << "another block would fit";
  EXPECT_GT(plan->kv_tokens, 5 * (kGiB / (18 * 1024)) / 2) << "that many more than without";
  EXPECT_EQ(plan->window_bytes, windows * 15 * 16 * 1024);
}

TEST(PlanMemoryWithWindows, SharesTheBlocksOfAllLayersWhereTheirOwnWouldBeNoFewer) {
  const auto plan = PlanMemory(WindowModel(), {.kv_memory_bytes = 64 * kMiB}, Cgroup(4 * kGiB));
  ASSERT_TRUE(plan.ok()) << plan.error().message;
  EXPECT_EQ(plan->layout.window_blocks, 0);
  EXPECT_EQ(plan->layout.num_blocks, 64 * kMiB / (18 * 16 * 1024));
  EXPECT_EQ(plan->window_bytes, 0);
  // Few sequences need little, and have windows in as small a cache.
  const auto few = PlanMemory(WindowModel(), {.max_sequences = 1, .kv_memory_bytes = 64 * kMiB},
                              Cgroup(4 * kGiB));
  ASSERT_TRUE(few.ok()) << few.error().message;
  EXPECT_GT(few->layout.num_blocks, 2 * plan->layout.num_blocks);
}

TEST(PlanMemoryWithWindows, MoreMemoryNeverHoldsFewerTokensAndAllOfItIsUsed) {
  int64_t before = 0;
  for (int64_t bytes = 8 * kMiB; bytes < 2 * kGiB; bytes += 3 * kMiB + 12345) {
    const auto plan = PlanMemory(WindowModel(), {.kv_memory_bytes = bytes}, Cgroup(4 * kGiB));
    ASSERT_TRUE(plan.ok()) << plan.error().message;
    EXPECT_GE(plan->kv_tokens, before);
    EXPECT_LE(plan->kv_bytes, bytes);
    EXPECT_GT(plan->kv_bytes, bytes - 36 * 16 * 1024);
    EXPECT_EQ(plan->kv_bytes,
              KvMemoryFor(WindowModel(), {.kv_memory_bytes = bytes}, plan->layout.num_blocks));
    before = plan->kv_tokens;
  }
}

TEST(PlanMemoryWithWindows, SaysWhatTheyKeepAndWhatAContextTakes) {
  const auto memory = Cgroup(4 * kGiB);
  const auto plan = PlanMemory(WindowModel(), {.kv_memory_bytes = kGiB}, memory);
  ASSERT_TRUE(plan.ok());
  EXPECT_NE(plan->Describe(memory).find(
                "blocks of 16; 15 of 18 layers keep the last 512 tokens of each sequence: "),
            std::string::npos)
      << plan->Describe(memory);
  const EngineOptions options{.max_sequences = 1, .kv_memory_bytes = 80 * kMiB};
  // 96 MiB of the three layers, and of the others 32 + 33 blocks in use, and an eighth as many.
  EXPECT_EQ(WhyContextDoesNotFit(WindowModel(), options, memory),
            "a context of 32,768 tokens takes 171 MiB in f16, and there are 80 MiB");
}

}  // namespace
}  // namespace quern
