#include "runtime/gateway/waiting_room.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace quern::gateway {
namespace {

using std::chrono::seconds;

const SteadyTime kStart{};

TEST(WaitingRoom, FirstComeFirstServed) {
  WaitingRoom room({});
  for (const uint64_t number : {1, 2, 3}) {
    EXPECT_FALSE(room.Enter(number, 10, kStart + seconds(number)));
  }
  room.Leave(2);
  room.Leave(2);
  EXPECT_EQ(room.bytes(), 20u);
  EXPECT_EQ(room.TakeFirst(), 1u);
  EXPECT_EQ(room.TakeFirst(), 3u);
  EXPECT_FALSE(room.TakeFirst());
  EXPECT_EQ(room.bytes(), 0u);
}

TEST(WaitingRoom, BoundedInNumberAndBytes) {
  WaitingRoom room({.max_requests = 2, .max_bytes = 100});
  EXPECT_EQ(room.Enter(1, 101, kStart), WaitingRoom::Refusal::kBytes);
  EXPECT_FALSE(room.Enter(2, 60, kStart));
  EXPECT_EQ(room.Enter(3, 41, kStart), WaitingRoom::Refusal::kBytes);
  EXPECT_FALSE(room.Enter(4, 40, kStart));
  EXPECT_EQ(room.Enter(5, 0, kStart), WaitingRoom::Refusal::kRequests);
  room.Leave(2);
  EXPECT_FALSE(room.Enter(6, 0, kStart));
}

TEST(WaitingRoom, OneThatComesBackHasItsOldPlace) {
  WaitingRoom room({.max_requests = 1, .max_bytes = 10, .max_wait = seconds(5)});
  EXPECT_FALSE(room.Enter(7, 10, kStart));
  EXPECT_EQ(room.TakeFirst(), 7u);
  EXPECT_FALSE(room.Enter(8, 10, kStart + seconds(3)));
  EXPECT_FALSE(room.Enter(7, 10, kStart, /*comes_back=*/true));
  EXPECT_EQ(room.NextExpiry(), kStart + seconds(5));
  EXPECT_EQ(room.TakeFirst(), 7u);
}

TEST(WaitingRoom, ExpiresAtItsTimeAndNotBefore) {
  WaitingRoom room({.max_wait = seconds(10)});
  EXPECT_FALSE(room.NextExpiry());
  room.Enter(1, 1, kStart);
  room.Enter(2, 1, kStart + seconds(1));
  room.Enter(3, 1, kStart + seconds(5));
  EXPECT_EQ(room.NextExpiry(), kStart + seconds(10));
  EXPECT_TRUE(room.TakeExpired(kStart + seconds(10) - SteadyTime::duration(1)).empty());
  EXPECT_EQ(room.TakeExpired(kStart + seconds(11)), (std::vector<uint64_t>{1, 2}));
  EXPECT_EQ(room.NextExpiry(), kStart + seconds(15));
  EXPECT_EQ(room.size(), 1u);
}

// Against a list, over random histories on a clock of the test's.
TEST(WaitingRoom, AgreesWithAList) {
  std::random_device device;
  const unsigned seed = device();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  struct Guest {
    uint64_t number;
    size_t bytes;
    SteadyTime arrived;
  };
  WaitingRoom room({.max_requests = 8, .max_bytes = 50, .max_wait = seconds(6)});
  std::vector<Guest> list;
  SteadyTime now = kStart;
  uint64_t number = 0;
  for (int step = 0; step < 5000; ++step) {
    now += seconds(random() % 2);
    switch (random() % 4) {
      case 0:
      case 1: {
        const size_t bytes = random() % 20;
        size_t held = 0;
        for (const auto& guest : list) held += guest.bytes;
        const bool fits = list.size() < 8 && held + bytes <= 50;
        ASSERT_EQ(!room.Enter(++number, bytes, now), fits);
        if (fits) list.push_back({number, bytes, now});
        break;
      }
      case 2: {
        const auto taken = room.TakeFirst();
        ASSERT_EQ(taken.has_value(), !list.empty());
        if (!taken) break;
        ASSERT_EQ(*taken, list.front().number);
        list.erase(list.begin());
        break;
      }
      default: {
        std::vector<uint64_t> expired;
        while (!list.empty() && list.front().arrived + seconds(6) <= now) {
          expired.push_back(list.front().number);
          list.erase(list.begin());
        }
        ASSERT_EQ(room.TakeExpired(now), expired);
      }
    }
    ASSERT_EQ(room.size(), list.size());
  }
}

}  // namespace
}  // namespace quern::gateway
