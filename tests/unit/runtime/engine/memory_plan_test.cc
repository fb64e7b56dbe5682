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
            "a context of 4096 tokens does not fit a KV cache of 1024 tokens (16 MiB); give "
            "--kv-memory 64MiB or more, or --max-context-tokens 1024 or less");
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

// A limit can be raised where there is one.
TEST(PlanMemory, SaysWhatGivesMoreOfTheMemoryThatItIs) {
  const auto error = [](ProcessMemory memory, int64_t kv_bytes) {
    memory.limit_bytes = 200 * kMiB;
    memory.resident_bytes = 150 * kMiB;
    const auto plan = PlanMemory(SmallModel(), {.kv_memory_bytes = kv_bytes}, memory);
    EXPECT_FALSE(plan.ok());
    return plan.ok() ? std::string() : plan.error().message;
  };
  const ProcessMemory gpu{.on_device = true}, cgroup{.limited_by_cgroup = true}, machine{};
  const auto ends = [&](const ProcessMemory& memory, const std::string& way) {
    const std::string chosen = error(memory, 0), asked_for = error(memory, kGiB);
    EXPECT_TRUE(chosen.ends_with("; " + way + ", or lower --max-sequences")) << chosen;
    EXPECT_TRUE(asked_for.ends_with("; give less --kv-memory, or " + way)) << asked_for;
    return chosen;
  };
  EXPECT_NE(ends(gpu, "take a GPU with more memory").find("all that is on the GPU 150 MiB,"),
            std::string::npos);
  EXPECT_NE(ends(cgroup, "raise the limit").find("the process 150 MiB,"), std::string::npos);
  ends(machine, "take a machine with more memory");
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
  EXPECT_NE(error({.max_context_tokens = 10000})
                .find("--max-context-tokens is 10000, and the model's context has 8192"),
            std::string::npos);
  EXPECT_NE(error({.kv_memory_bytes = -1}).find("kv_memory_bytes"), std::string::npos);
  EXPECT_NE(error({.kv_block_tokens = 0}).find("kv_block_tokens"), std::string::npos);
}

TEST(PlanMemory, RefusesKvMemoryThatIsOfUseForHardlyAnyRequestAndSaysWhatIsEnough) {
  const auto error = [](EngineOptions options) {
    options.least_context_tokens = 512;
    const auto plan = PlanMemory(SmallModel(), options, Cgroup(2 * kGiB));
    return plan.ok() ? std::string() : plan.error().message;
  };
  EXPECT_EQ(error({.kv_memory_bytes = 1000}),
            "a KV cache of 1KiB holds not one block of 16 tokens, which is of use for no request: "
            "give --kv-memory 8MiB or more, which holds 512 tokens");
  EXPECT_EQ(error({.kv_memory_bytes = kMiB}),
            "a KV cache of 1MiB holds 64 tokens, prompt and answer together, which is of use for "
            "hardly any request: give --kv-memory 8MiB or more, which holds 512 tokens; if so "
            "short a context is meant, say --max-context-tokens 64");
  EXPECT_NE(error({.kv_memory_bytes = 8 * kMiB - 1}), "");
  // What the error says is enough.
  EXPECT_EQ(error({.kv_memory_bytes = 8 * kMiB}), "");
  EXPECT_EQ(error({.max_context_tokens = 64, .kv_memory_bytes = kMiB}), "");
  EXPECT_NE(error({.max_context_tokens = 64, .kv_memory_bytes = 1000}), "");
  ModelInfo tiny = SmallModel();
  tiny.context_tokens = 64;
  EXPECT_TRUE(
      PlanMemory(tiny, {.least_context_tokens = 512, .kv_memory_bytes = kMiB}, Cgroup(kGiB)).ok());
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
