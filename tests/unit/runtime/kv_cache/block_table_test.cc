#include "runtime/kv_cache/block_table.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace quern {
namespace {

TEST(BlocksFor, RoundsUpToWholeBlocks) {
  EXPECT_EQ(BlocksFor(0, 16), 0);
  EXPECT_EQ(BlocksFor(1, 16), 1);
  EXPECT_EQ(BlocksFor(16, 16), 1);
  EXPECT_EQ(BlocksFor(17, 16), 2);
  EXPECT_EQ(BlocksFor(INT32_MAX, 16), INT32_MAX / 16 + 1);
}

TEST(BlockTable, GrowsToTheLengthAskedForAndKeepsItsFirstBlocks) {
  BlockPool pool(8);
  BlockTable table;
  ASSERT_TRUE(table.Grow(2, pool));
  const std::vector<BlockId> before(table.blocks().begin(), table.blocks().end());
  ASSERT_TRUE(table.Grow(5, pool));
  EXPECT_EQ(table.size(), 5);
  EXPECT_EQ(before, std::vector<BlockId>(table.blocks().begin(), table.blocks().begin() + 2));
  ASSERT_TRUE(table.Grow(3, pool)) << "growing to less than it has changes nothing";
  EXPECT_EQ(table.size(), 5);
  table.Clear(pool);
  EXPECT_EQ(pool.num_free(), 8);
}

TEST(BlockTable, TakesNothingWhenThePoolHasTooFew) {
  BlockPool pool(3);
  BlockTable table;
  ASSERT_TRUE(table.Grow(1, pool));
  EXPECT_FALSE(table.Grow(5, pool));
  EXPECT_EQ(table.size(), 1);
  EXPECT_EQ(pool.num_free(), 2);
  table.Clear(pool);
}

TEST(CheckBlocks, PassesWhenTablesOwnExactlyWhatIsInUse) {
  BlockPool pool(6);
  BlockTable a, b;
  ASSERT_TRUE(a.Grow(2, pool));
  ASSERT_TRUE(b.Grow(3, pool));
  const std::array<const BlockTable*, 2> tables = {&a, &b};
  EXPECT_TRUE(CheckBlocks(pool, tables).ok());
  a.Clear(pool);
  b.Clear(pool);
  EXPECT_TRUE(CheckBlocks(pool, tables).ok());
}

TEST(CheckBlocks, FindsALeakedBlock) {
  BlockPool pool(6);
  BlockTable a;
  ASSERT_TRUE(a.Grow(2, pool));
  pool.Allocate();
  const std::array<const BlockTable*, 1> tables = {&a};
  const Status status = CheckBlocks(pool, tables);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().message, "3 KV blocks are in use but 2 are in block tables");
  a.Clear(pool);
}

TEST(CheckBlocks, FindsABlockWithTwoOwners) {
  BlockPool pool(6);
  BlockTable a;
  ASSERT_TRUE(a.Grow(2, pool));
  const std::array<const BlockTable*, 2> tables = {&a, &a};
  EXPECT_FALSE(CheckBlocks(pool, tables).ok());
  a.Clear(pool);
}

TEST(CheckBlocks, FindsABlockThatWasFreedBehindItsTable) {
  BlockPool pool(6), other(6);
  BlockTable a;
  ASSERT_TRUE(a.Grow(2, pool));
  const std::array<const BlockTable*, 1> tables = {&a};
  EXPECT_FALSE(CheckBlocks(other, tables).ok());
  a.Clear(pool);
}

}  // namespace
}  // namespace quern
