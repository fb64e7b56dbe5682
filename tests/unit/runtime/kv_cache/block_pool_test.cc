#include "runtime/kv_cache/block_pool.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace quern {
namespace {

TEST(BlockPool, HandsOutEveryBlockOnceAndThenNone) {
  BlockPool pool(5);
  std::set<BlockId> seen;
  for (int i = 0; i < 5; ++i) seen.insert(pool.Allocate().value());
  EXPECT_EQ(seen, (std::set<BlockId>{0, 1, 2, 3, 4}));
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  EXPECT_EQ(pool.num_free(), 0);
  EXPECT_EQ(pool.num_used(), 5);
}

TEST(BlockPool, AFreedBlockIsHandedOutAgainFirst) {
  BlockPool pool(3);
  const BlockId first = pool.Allocate().value();
  pool.Allocate();
  pool.Free(first);
  EXPECT_FALSE(pool.InUse(first));
  EXPECT_EQ(pool.Allocate(), first);
}

TEST(BlockPool, ABlockOutsideThePoolIsNotInUse) {
  BlockPool pool(2);
  EXPECT_FALSE(pool.InUse(-1));
  EXPECT_FALSE(pool.InUse(2));
}

TEST(BlockPool, AnEmptyPoolHasNothingToGive) {
  BlockPool pool(0);
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  EXPECT_EQ(pool.num_blocks(), 0);
}

TEST(BlockPoolDeathTest, FreeingABlockTwiceNeverHandsItOutTwice) {
#ifdef NDEBUG
  BlockPool pool(2);
  const BlockId block = pool.Allocate().value();
  pool.Free(block);
  pool.Free(block);
  EXPECT_EQ(pool.num_free(), 2);
#else
  BlockPool pool(2);
  const BlockId block = pool.Allocate().value();
  pool.Free(block);
  EXPECT_DEATH(pool.Free(block), "InUse");
#endif
}

TEST(BlockPool, CountsStayExactOverARandomHistory) {
  std::mt19937 random(7);
  BlockPool pool(64);
  std::set<BlockId> mine;
  for (int i = 0; i < 20000; ++i) {
    if (random() % 2 == 0) {
      const auto block = pool.Allocate();
      ASSERT_EQ(block.has_value(), mine.size() < 64);
      if (block) {
        ASSERT_TRUE(mine.insert(*block).second);
      }
    } else if (!mine.empty()) {
      auto it = mine.begin();
      std::advance(it, random() % mine.size());
      pool.Free(*it);
      mine.erase(it);
    }
    ASSERT_EQ(pool.num_used(), static_cast<int32_t>(mine.size()));
  }
}

}  // namespace
}  // namespace quern
