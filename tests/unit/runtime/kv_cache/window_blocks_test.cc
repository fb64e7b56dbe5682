// The blocks of layers that see only their last tokens: what a table keeps of them, what is found
// in them, and which go out first.

#include "runtime/kv_cache/window_blocks.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <vector>

#include "runtime/kv_cache/block_table.h"
#include "tests/unit/runtime/kv_cache/find_prefix.h"

namespace quern {
namespace {

constexpr int32_t kReach = 2;  // a window of 4 or 5 tokens

BlockPool Pool(int32_t num_blocks, int32_t window_blocks, int32_t reach = kReach) {
  return BlockPool(num_blocks, 0, PrefixIndex::DefaultHash,
                   {.reach = reach, .num_blocks = window_blocks});
}

Tokens Counting(int32_t from, int32_t count) {
  Tokens tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(from + i);
  return tokens;
}

// Goes on to hold all of `tokens`, in steps of `step` tokens, as a scheduler would.
void Fill(BlockTable& table, const Tokens& tokens, int32_t prompt, BlockPool& pool,
          std::string_view salt = "", int32_t step = 1) {
  const auto size = static_cast<int32_t>(tokens.size());
  for (int32_t computed = table.num_published() * kBlock; computed < size;) {
    computed = std::min(size, computed + step);
    ASSERT_TRUE(table.Grow(BlocksFor(computed, kBlock), pool));
    table.Publish(std::span(tokens).first(static_cast<size_t>(computed)), computed, salt, kBlock,
                  pool);
    table.Slide(computed, prompt, kBlock, pool);
  }
}

BlockTable Filled(const Tokens& tokens, int32_t prompt, BlockPool& pool, std::string_view salt = "",
                  int32_t step = 1) {
  BlockTable table;
  Fill(table, tokens, prompt, pool, salt, step);
  return table;
}

// Ends a sequence that holds `tokens`.
void Leave(const Tokens& tokens, BlockPool& pool, std::string_view salt = "") {
  Filled(tokens, static_cast<int32_t>(tokens.size()), pool, salt).Clear(pool);
}

void ExpectIntact(const BlockPool& pool, std::vector<const BlockTable*> tables) {
  const Status status = CheckBlocks(pool, tables);
  EXPECT_TRUE(status.ok()) << status.error().message;
}

// One block fewer and a row would miss a token; one more and it would be kept for nothing.
TEST(WindowBlocks, ATableKeepsWhatIsSeenFromItsLastBorderOnAndNothingElse) {
  for (const int32_t block_tokens : {1, 2, 3, 16}) {
    for (const int32_t window : {1, 2, 3, 5, 16, 17, 40}) {
      BlockPool pool = Pool(200, 200, BlocksFor(window - 1, block_tokens));
      BlockTable table;
      for (int32_t computed = 1; computed <= 120; ++computed) {
        ASSERT_TRUE(table.Grow(BlocksFor(computed, block_tokens), pool));
        table.Slide(computed, 1, block_tokens, pool);
        const int32_t border = computed / block_tokens * block_tokens;
        for (int32_t i = 0; i < table.size(); ++i) {
          // Its last token, and the first that the row at the border sees.
          const bool seen = (i + 1) * block_tokens - 1 >= border - window + 1;
          ASSERT_EQ(table.window_blocks()[static_cast<size_t>(i)] != kNoBlock, seen)
              << "block " << i << " of " << block_tokens << ", window " << window << ", computed "
              << computed;
        }
      }
      ExpectIntact(pool, {&table});
      table.Clear(pool);
      EXPECT_EQ(pool.window().num_free(), 200);
    }
  }
}

TEST(WindowBlocks, InUseBoundsWhatSequencesOwnTogetherWhateverTheyDo) {
  std::mt19937 random(1);
  const auto below = [&](int32_t n) {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(n));
  };
  for (int round = 0; round < 300; ++round) {
    const int32_t block_tokens = 1 + below(9), window = 1 + below(30);
    const int32_t sequences = 1 + below(6), step_tokens = sequences + below(40);
    const int32_t reach = BlocksFor(window - 1, block_tokens);
    const auto bound =
        static_cast<int32_t>(WindowBlocksInUse(reach, block_tokens, sequences, step_tokens));
    BlockPool pool = Pool(10000, bound, reach);
    std::vector<BlockTable> tables(static_cast<size_t>(sequences));
    std::vector<int32_t> computed(tables.size(), 0);
    int32_t most = 0;
    for (int step = 0; step < 40; ++step) {
      int32_t left = step_tokens;
      std::vector<int32_t> rows(tables.size(), 0);
      for (size_t s = 0; s < tables.size(); ++s) {
        rows[s] = s + 1 == tables.size() ? left : below(left + 1);
        left -= rows[s];
        ASSERT_TRUE(tables[s].Grow(BlocksFor(computed[s] + rows[s], block_tokens), pool));
      }
      most = std::max(most, pool.window().num_used());
      for (size_t s = 0; s < tables.size(); ++s) {
        computed[s] += rows[s];
        tables[s].Slide(computed[s], 1, block_tokens, pool);
      }
    }
    EXPECT_GE(2 * most, bound) << "a bound that is far too large wastes memory";
    for (BlockTable& table : tables) table.Clear(pool);
  }
}

TEST(WindowBlocks, APrefixIsFoundAsFarAsTheWindowBeforeItsEndIsLeft) {
  BlockPool pool = Pool(32, 10);
  const Tokens talk = Counting(10, 20);
  Leave(talk, pool);
  EXPECT_EQ(Find(pool, talk).size(), 10u);
  BlockTable taker;
  ASSERT_TRUE(taker.Grow(8, pool));  // but for the last two all are gone
  EXPECT_EQ(Find(pool, talk).size(), 10u);
  // Its end loses a block of its window, and no end before it has one.
  ASSERT_TRUE(taker.Grow(9, pool));
  EXPECT_TRUE(Find(pool, talk).empty());
  taker.Clear(pool);
}

TEST(WindowBlocks, TheNextTurnFindsAllFullBlocksWhereverTheAnswerEnded) {
  for (int32_t answer = 1; answer <= 9; ++answer) {
    BlockPool pool = Pool(64, 8);  // no more than one sequence needs, and a little
    const Tokens talk = Counting(10, 20 + answer);
    BlockTable turn = Filled(talk, 20, pool);
    turn.Clear(pool);
    BlockTable taker;
    ASSERT_TRUE(taker.Grow(pool.window().num_blocks() - kReach - 1 - kReach, pool));
    Tokens next = talk;
    next.push_back(1);
    EXPECT_EQ(static_cast<int32_t>(Find(pool, next).size()), (20 + answer) / kBlock) << answer;
    taker.Clear(pool);
  }
}

TEST(WindowBlocks, WhoTakesAPrefixOwnsOnlyTheWindowBeforeItsEnd) {
  BlockPool pool = Pool(32, 32);
  const Tokens talk = Counting(10, 20);
  Leave(talk, pool);
  BlockTable next;
  next.TakePrefix(Find(pool, talk), pool);
  EXPECT_EQ(next.first_window(), 8);
  EXPECT_EQ(pool.window().num_used(), kReach);
  for (int32_t i = 0; i < 10; ++i) {
    const auto at = static_cast<size_t>(i);
    EXPECT_EQ(next.window_blocks()[at], i < 8 ? kNoBlock : pool.window().Of(next.blocks()[at]));
  }
  ExpectIntact(pool, {&next});
  Fill(next, Counting(10, 24), 24, pool);
  ExpectIntact(pool, {&next});
  next.Clear(pool);
}

TEST(WindowBlocks, WhoComputedTheSameAtTheSameTimeEndsUpWithTheSameBlocksOfBothKinds) {
  BlockPool pool = Pool(16, 16);
  BlockTable a = Filled(Counting(1, 6), 6, pool, "", 6);
  BlockTable b = Filled(Counting(1, 6), 6, pool, "", 6);
  EXPECT_EQ(std::vector(a.blocks().begin(), a.blocks().end()),
            std::vector(b.blocks().begin(), b.blocks().end()));
  EXPECT_EQ(std::vector(a.window_blocks().begin(), a.window_blocks().end()),
            std::vector(b.window_blocks().begin(), b.window_blocks().end()));
  EXPECT_EQ(pool.window().num_used(), kReach);
  ExpectIntact(pool, {&a, &b});
  a.Clear(pool);
  ExpectIntact(pool, {&b});
  b.Clear(pool);
}

TEST(WindowBlocks, ABlockWhoseWindowWasGoneGetsTheOneThatIsComputedAnew) {
  BlockPool pool = Pool(64, 8);
  const Tokens talk = Counting(10, 20);
  BlockTable first = Filled(talk, 20, pool);
  BlockTable second = Filled(Counting(10, 8), 8, pool);  // its windows were behind the first one's
  EXPECT_EQ(second.blocks()[3], first.blocks()[3]);
  EXPECT_EQ(pool.window().Of(first.blocks()[3]), second.window_blocks()[3]);
  EXPECT_EQ(first.window_blocks()[3], kNoBlock);
  ExpectIntact(pool, {&first, &second});
  first.Clear(pool);
  second.Clear(pool);
  ExpectIntact(pool, {});
}

TEST(WindowBlocks, WithAFullBlockItsWindowBlockGoes) {
  BlockPool pool = Pool(6, 6);
  Leave(Counting(10, 6), pool);
  EXPECT_EQ(Find(pool, Counting(10, 6)).size(), 3u);
  BlockTable taker;
  ASSERT_TRUE(taker.Grow(4, pool));  // the last of the three blocks goes
  EXPECT_EQ(Find(pool, Counting(10, 6)).size(), 2u);
  ExpectIntact(pool, {&taker});
  taker.Clear(pool);
  for (int i = 0; i < 3; ++i) Leave(Counting(100 * i, 12), pool);
  ExpectIntact(pool, {});
}

TEST(WindowBlocks, AnotherSaltFindsNothingInThem) {
  BlockPool pool = Pool(32, 32);
  Leave(Counting(1, 8), pool, "a");
  EXPECT_EQ(Find(pool, Counting(1, 8), "a").size(), 4u);
  EXPECT_TRUE(Find(pool, Counting(1, 8), "b").empty());
  BlockTable b = Filled(Counting(1, 8), 8, pool, "b");
  for (const BlockId full : Find(pool, Counting(1, 8), "a")) {
    for (const BlockId mine : b.window_blocks()) EXPECT_NE(mine, pool.window().Of(full));
  }
  b.Clear(pool);
}

// A prompt of 20 tokens and an answer of 20: which prefixes are found while more and more blocks
// are taken.
TEST(WindowBlocks, TheMiddlesOfPromptsAndAnswersGoOutBeforeTheirEnds) {
  BlockPool pool = Pool(64, 20);
  const Tokens talk = Counting(10, 40);
  Filled(talk, 20, pool).Clear(pool);
  const auto found = [&](int32_t tokens) {
    return Find(pool, Tokens(talk.begin(), talk.begin() + tokens)).size();
  };
  EXPECT_EQ(found(12), 6u) << "nothing was needed yet";
  EXPECT_EQ(found(30), 15u);
  BlockTable taker;
  ASSERT_TRUE(taker.Grow(20 - 2 * kReach - 1, pool));
  EXPECT_EQ(found(12), 0u);
  EXPECT_EQ(found(30), 10u) << "as far as the prompt";
  EXPECT_EQ(found(20), 10u) << "the same prompt again, and what goes on from it";
  EXPECT_EQ(found(18), 9u) << "all but its last token";
  EXPECT_EQ(found(40), 20u) << "the next turn";
  taker.Clear(pool);
}

TEST(WindowBlocks, WhatASecondSequenceHasFoundGoesOutLikeAnEnd) {
  BlockPool pool = Pool(64, 16);
  // Two prompts that begin alike and go on for long.
  Tokens one = Counting(10, 8), other = one;
  for (int32_t i = 0; i < 12; ++i) {
    one.push_back(100 + i);
    other.push_back(200 + i);
  }
  BlockTable a = Filled(one, 20, pool);
  BlockTable b;
  b.TakePrefix(Find(pool, other), pool);
  EXPECT_EQ(b.size(), 4);
  Fill(b, other, 20, pool);
  a.Clear(pool);
  b.Clear(pool);
  BlockTable taker;
  ASSERT_TRUE(taker.Grow(9, pool));
  EXPECT_EQ(Find(pool, Counting(10, 8)).size(), 4u) << "what they have in common";
  EXPECT_EQ(Find(pool, one).size(), 10u);
  EXPECT_EQ(Find(pool, Tokens(one.begin(), one.begin() + 14)).size(), 4u);
  taker.Clear(pool);
}

TEST(WindowBlocks, ATableGrowsByBothKindsOrNotAtAll) {
  BlockPool pool = Pool(10, 3);
  BlockTable table;
  EXPECT_EQ(pool.room_to_grow(), 3);
  EXPECT_FALSE(table.Grow(4, pool));
  EXPECT_EQ(pool.num_used(), 0);
  EXPECT_EQ(pool.window().num_used(), 0);
  ASSERT_TRUE(table.Grow(3, pool));
  EXPECT_EQ(pool.room_to_grow(), 0);
  table.Clear(pool);
}

TEST(CheckBlocks, FindsAWindowBlockThatLeaksOrGoesBehindItsTable) {
  BlockPool pool = Pool(8, 8);
  BlockTable table;
  ASSERT_TRUE(table.Grow(3, pool));
  const std::array<const BlockTable*, 1> tables = {&table};
  EXPECT_TRUE(CheckBlocks(pool, tables).ok());
  const BlockId leaked = pool.window().Allocate();
  EXPECT_EQ(CheckBlocks(pool, tables).error().message,
            "4 window blocks are in use but 3 are in block tables");
  pool.window().Free(leaked, false);
  EXPECT_TRUE(CheckBlocks(pool, tables).ok());
  BlockPool other = Pool(8, 8);
  BlockTable of_other;
  ASSERT_TRUE(of_other.Grow(3, other));
  other.window().Free(of_other.window_blocks()[1], false);
  const std::array<const BlockTable*, 1> freed = {&of_other};
  EXPECT_FALSE(CheckBlocks(other, freed).ok());
  EXPECT_EQ(other.window().Allocate(), of_other.window_blocks()[1]);
  of_other.Clear(other);
  table.Clear(pool);
}

}  // namespace
}  // namespace quern
