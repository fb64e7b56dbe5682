#include "operator/controller/work_queue.h"

#include <gtest/gtest.h>

namespace quern::control {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const ObjectKey kA{"ns", "a"};
const ObjectKey kB{"ns", "b"};

class WorkQueueTest : public ::testing::Test {
 protected:
  // All keys that are ready now, in order, each done at once.
  std::string Drain() {
    std::string out;
    while (const auto key = queue_.TryGet()) {
      out += key->name;
      queue_.Done(*key);
    }
    return out;
  }

  ManualClock clock_;
  WorkQueue queue_{{}, clock_};
};

TEST_F(WorkQueueTest, AKeyAddedTwiceComesOnceInOrderOfFirstAddition) {
  queue_.Add(kA);
  queue_.Add(kB);
  queue_.Add(kA);
  EXPECT_EQ(Drain(), "ab");
}

TEST_F(WorkQueueTest, AKeyInWorkIsHeldBackUntilDoneAndThenComesAgain) {
  queue_.Add(kA);
  ASSERT_EQ(queue_.TryGet(), kA);
  queue_.Add(kA);
  queue_.Add(kA);
  EXPECT_FALSE(queue_.TryGet().has_value());
  queue_.Done(kA);
  EXPECT_EQ(Drain(), "a");
}

TEST_F(WorkQueueTest, DoneWithoutNewsBringsNothingBack) {
  queue_.Add(kA);
  ASSERT_TRUE(queue_.TryGet().has_value());
  queue_.Done(kA);
  queue_.Done(kA);  // one too many does no harm
  EXPECT_EQ(Drain(), "");
}

TEST_F(WorkQueueTest, ADelayedKeyComesWhenDueAndTheSoonerDelayCounts) {
  queue_.AddAfter(kA, seconds(10));
  queue_.AddAfter(kA, seconds(5));
  queue_.AddAfter(kA, seconds(20));
  clock_.Advance(seconds(5) - milliseconds(1));
  EXPECT_EQ(Drain(), "");
  clock_.Advance(milliseconds(1));
  EXPECT_EQ(Drain(), "a");
  clock_.Advance(seconds(60));
  EXPECT_EQ(Drain(), "");
  EXPECT_EQ(queue_.delayed(), 0u);
}

TEST_F(WorkQueueTest, BackOffDoublesFromFiveMillisecondsToAThousandSeconds) {
  std::chrono::nanoseconds expected = milliseconds(5);
  for (int i = 0; i < 100; ++i) {
    clock_.Advance(seconds(3600));  // the bucket is full again: only the key's own back-off counts
    EXPECT_EQ(queue_.AddRateLimited(kA),
              std::min<std::chrono::nanoseconds>(expected, seconds(1000)))
        << i;
    if (expected < seconds(1000)) expected *= 2;
  }
  EXPECT_EQ(queue_.Retries(kA), 100);
  queue_.Forget(kA);
  clock_.Advance(seconds(3600));
  EXPECT_EQ(queue_.AddRateLimited(kA), milliseconds(5));
}

TEST_F(WorkQueueTest, AllKeysTogetherAreHeldToTheBucketsRate) {
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(queue_.AddRateLimited({"ns", std::to_string(i)}), milliseconds(5));
  }
  // The burst is spent: from here on one every 100 ms.
  EXPECT_EQ(queue_.AddRateLimited({"ns", "x"}), milliseconds(100));
  EXPECT_EQ(queue_.AddRateLimited({"ns", "y"}), milliseconds(200));
  clock_.Advance(seconds(1));
  EXPECT_EQ(queue_.AddRateLimited({"ns", "z"}), milliseconds(5));
}

TEST_F(WorkQueueTest, AStormsDebtIsBounded) {
  std::chrono::nanoseconds last{0};
  for (int i = 0; i < 30'000; ++i) last = queue_.AddRateLimited(kA);
  EXPECT_LE(last, seconds(1000));
}

TEST_F(WorkQueueTest, CountRetryLengthensTheBackOffWithoutBringingTheKeyBack) {
  queue_.CountRetry(kA);
  EXPECT_EQ(queue_.Retries(kA), 1);
  EXPECT_EQ(queue_.delayed(), 0u);
  EXPECT_EQ(queue_.AddRateLimited(kA), milliseconds(10));
}

TEST_F(WorkQueueTest, WhatIsBeyondTheLimitIsTurnedAwayAndTold) {
  int turned_away = 0;
  WorkQueueHooks hooks;
  hooks.on_full = [&] { ++turned_away; };
  WorkQueue queue({.max_keys = 2}, clock_, hooks);
  EXPECT_TRUE(queue.Add(kA));
  EXPECT_TRUE(queue.AddAfter(kB, seconds(1)));
  EXPECT_FALSE(queue.Add({"ns", "c"}));
  EXPECT_FALSE(queue.AddAfter({"ns", "d"}, seconds(1)));
  EXPECT_TRUE(queue.Add(kA));  // already in
  EXPECT_EQ(turned_away, 2);
}

TEST_F(WorkQueueTest, ADelayMovedForwardForEverTakesNoMoreRoom) {
  for (int i = 100'000; i > 0; --i) queue_.AddAfter(kA, milliseconds(i));
  clock_.Advance(milliseconds(1));
  EXPECT_EQ(Drain(), "a");
  clock_.Advance(seconds(1000));
  EXPECT_EQ(Drain(), "");
}

TEST_F(WorkQueueTest, HooksTellWaitingAndWorkingTimes) {
  double waited = -1, worked = -1;
  WorkQueueHooks hooks;
  hooks.on_start = [&](Seconds seconds) { waited = seconds.count(); };
  hooks.on_done = [&](Seconds seconds) { worked = seconds.count(); };
  WorkQueue queue({}, clock_, hooks);
  queue.Add(kA);
  clock_.Advance(seconds(2));
  queue.TryGet();
  clock_.Advance(seconds(3));
  queue.Done(kA);
  EXPECT_DOUBLE_EQ(waited, 2);
  EXPECT_DOUBLE_EQ(worked, 3);
}

TEST_F(WorkQueueTest, AfterShutDownNothingGoesInOrComesOut) {
  queue_.Add(kA);
  queue_.ShutDown();
  EXPECT_FALSE(queue_.Add(kB));
  EXPECT_FALSE(queue_.TryGet().has_value());
  EXPECT_FALSE(queue_.Get({}).has_value());
}

}  // namespace
}  // namespace quern::control
