// The prefix cache: the index, the pool that keeps idle blocks, and the tables that share them.

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "runtime/kv_cache/block_table.h"
#include "tests/unit/runtime/kv_cache/find_prefix.h"

namespace quern {
namespace {

// A table that holds all of `tokens`, published.
BlockTable Filled(const Tokens& tokens, BlockPool& pool, std::string_view salt = "") {
  BlockTable table;
  const auto size = static_cast<int32_t>(tokens.size());
  EXPECT_TRUE(table.Grow(BlocksFor(size, kBlock), pool));
  table.Publish(tokens, size, salt, kBlock, pool);
  return table;
}

std::vector<BlockId> Blocks(const BlockTable& table) {
  return {table.blocks().begin(), table.blocks().end()};
}

TEST(PrefixCache, FindsTheLongestRunOfFullBlocks) {
  BlockPool pool(8);
  BlockTable a = Filled({1, 2, 3, 4, 5}, pool);
  EXPECT_EQ(a.num_published(), 2) << "the third block is not full";
  const std::vector<BlockId> first_two(a.blocks().begin(), a.blocks().begin() + 2);
  EXPECT_EQ(Find(pool, {1, 2, 3, 4, 5, 6}), first_two);
  EXPECT_EQ(Find(pool, {1, 2, 3, 9}), std::vector<BlockId>{a.blocks()[0]});
  EXPECT_TRUE(Find(pool, {3, 4}).empty()) << "the same tokens elsewhere are something else";
  EXPECT_TRUE(Find(pool, {1}).empty());
  a.Clear(pool);
}

TEST(PrefixCache, AnotherSaltFindsNothing) {
  BlockPool pool(8);
  BlockTable a = Filled({1, 2, 3, 4}, pool, "a");
  EXPECT_EQ(Find(pool, {1, 2, 3, 4}, "a").size(), 2u);
  EXPECT_TRUE(Find(pool, {1, 2, 3, 4}, "b").empty());
  EXPECT_TRUE(Find(pool, {1, 2, 3, 4}).empty());
  a.Clear(pool);
}

TEST(PrefixCache, PromptsWhoseHashesCollideNeverGetEachOthersBlocks) {
  BlockPool pool(16, 0, [](uint64_t, uint64_t, const PrefixIndex::Key&) -> uint64_t { return 42; });
  BlockTable a = Filled({1, 2, 3, 4}, pool, "a");
  BlockTable b = Filled({1, 2, 3, 4}, pool, "b");
  BlockTable c = Filled({7, 8, 3, 4}, pool, "a");
  EXPECT_EQ(Find(pool, {1, 2, 3, 4}, "a"), Blocks(a));
  EXPECT_EQ(Find(pool, {1, 2, 3, 4}, "b"), Blocks(b));
  EXPECT_EQ(Find(pool, {7, 8, 3, 4}, "a"), Blocks(c));
  EXPECT_TRUE(Find(pool, {7, 8}, "b").empty());
  const std::array<const BlockTable*, 3> tables = {&a, &b, &c};
  EXPECT_TRUE(CheckBlocks(pool, tables).ok());
  for (BlockTable* table : {&a, &b, &c}) table->Clear(pool);
  EXPECT_EQ(Find(pool, {1, 2, 3, 4}, "b").size(), 2u);
  EXPECT_TRUE(pool.CheckIntegrity().ok());
}

TEST(PrefixCache, ABlockWithoutOwnersIsFreeAndStillFound) {
  BlockPool pool(4);
  BlockTable a = Filled({1, 2, 3, 4, 5, 6}, pool);
  const std::vector<BlockId> before = Blocks(a);
  a.Clear(pool);
  EXPECT_EQ(pool.num_free(), 4);
  EXPECT_EQ(pool.num_used(), 0);
  EXPECT_EQ(pool.num_idle(), 3);
  EXPECT_EQ(Find(pool, {1, 2, 3, 4, 5, 6}), before);
}

TEST(PrefixCache, EmptyBlocksGoFirstThenTheLeastRecentlyUsedAndEndsBeforeBeginnings) {
  BlockPool pool(5);
  BlockTable a = Filled({1, 2, 3, 4}, pool);
  a.Clear(pool);
  BlockTable b = Filled({5, 6, 7, 8}, pool);
  b.Clear(pool);
  BlockTable again;  // uses `a` once more: now `b` is the older one
  again.TakePrefix(Find(pool, {1, 2, 3, 4}), pool);
  again.Clear(pool);
  const auto kept = [&] {
    return std::array<size_t, 2>{Find(pool, {1, 2, 3, 4}).size(), Find(pool, {5, 6, 7, 8}).size()};
  };
  BlockTable taker;
  ASSERT_TRUE(taker.Grow(1, pool));
  EXPECT_EQ(kept(), (std::array<size_t, 2>{2, 2})) << "there was an empty one";
  ASSERT_TRUE(taker.Grow(2, pool));
  EXPECT_EQ(kept(), (std::array<size_t, 2>{2, 1}));
  ASSERT_TRUE(taker.Grow(3, pool));
  EXPECT_EQ(kept(), (std::array<size_t, 2>{2, 0}));
  ASSERT_TRUE(taker.Grow(5, pool));
  EXPECT_EQ(kept(), (std::array<size_t, 2>{0, 0}));
  EXPECT_FALSE(taker.Grow(6, pool));
  EXPECT_TRUE(pool.CheckIntegrity().ok());
  taker.Clear(pool);
}

TEST(PrefixCache, EvictionNeverTakesABlockThatHasAnOwner) {
  BlockPool pool(3);
  BlockTable a = Filled({1, 2, 3, 4}, pool);
  BlockTable b;
  b.TakePrefix(Find(pool, {1, 2, 3, 4}), pool);
  EXPECT_EQ(pool.Owners(a.blocks()[0]), 2);
  const std::array<const BlockTable*, 2> tables = {&a, &b};
  EXPECT_TRUE(CheckBlocks(pool, tables).ok());
  a.Clear(pool);
  EXPECT_EQ(pool.num_free(), 1);
  ASSERT_TRUE(a.Grow(1, pool));
  EXPECT_FALSE(a.Grow(2, pool));
  EXPECT_EQ(Find(pool, {1, 2, 3, 4}), Blocks(b));
  a.Clear(pool);
  b.Clear(pool);
}

TEST(PrefixCache, WhoComputedTheSameAtTheSameTimeEndsUpWithTheSameBlocks) {
  BlockPool pool(8);
  BlockTable a, b;
  ASSERT_TRUE(a.Grow(3, pool));
  ASSERT_TRUE(b.Grow(3, pool));
  a.Publish(Tokens{1, 2, 3, 4, 5}, 5, "", kBlock, pool);
  b.Publish(Tokens{1, 2, 3, 4, 6}, 5, "", kBlock, pool);
  EXPECT_EQ(b.blocks()[0], a.blocks()[0]);
  EXPECT_EQ(b.blocks()[1], a.blocks()[1]);
  EXPECT_NE(b.blocks()[2], a.blocks()[2]);
  EXPECT_EQ(pool.num_used(), 4);
  const std::array<const BlockTable*, 2> tables = {&a, &b};
  EXPECT_TRUE(CheckBlocks(pool, tables).ok());
  a.Clear(pool);
  b.Clear(pool);
}

TEST(PrefixCache, TellsHowLongBlocksWereKeptAndWhatCameBetweenTheirUses) {
  BlockPool pool(2);
  BlockTable before = Filled({1, 2}, pool), b;
  before.Clear(pool);
  b.TakePrefix(Find(pool, {1, 2}), pool);
  b.Clear(pool);
  EXPECT_TRUE(pool.TakeHistory().reuse_gaps.empty()) << "no time is known";
  pool.SetTime(10);
  BlockTable a = Filled({3, 4}, pool);
  pool.SetTime(13);
  b.TakePrefix(Find(pool, {3, 4}), pool);  // has an owner
  a.Clear(pool);
  b.Clear(pool);
  pool.SetTime(20);
  b.TakePrefix(Find(pool, {3, 4}), pool);
  pool.SetTime(21);
  b.Clear(pool);
  pool.SetTime(30);
  EXPECT_EQ(pool.TakeHistory().reuse_gaps, std::vector<double>{7});
  ASSERT_TRUE(a.Grow(2, pool));  // the block of {1, 2}, which was there before the time, and this
  const BlockHistory history = pool.TakeHistory();
  ASSERT_EQ(history.evictions.size(), 2U);
  EXPECT_EQ(history.evictions[1].lifetime, 20);
  EXPECT_EQ(history.evictions[1].idle, 9);
  EXPECT_TRUE(pool.TakeHistory().evictions.empty()) << "it was taken";
  a.Clear(pool);
}

}  // namespace
}  // namespace quern
