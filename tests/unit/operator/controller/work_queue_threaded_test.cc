#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>

#include "operator/controller/work_queue.h"

namespace quern::control {
namespace {

TEST(WorkQueueThreaded, NoKeyIsWithTwoWorkersAndNoAdditionIsLost) {
  constexpr int kKeys = 8;
  constexpr int kAdditions = 2000;
  WorkQueue queue({});
  std::array<std::atomic<int>, kKeys> in_work{};
  std::array<std::atomic<int>, kKeys> latest{};  // what was last added
  std::array<std::atomic<int>, kKeys> seen{};    // what a worker last saw
  std::atomic<bool> clash{false};
  std::stop_source stop;
  std::vector<std::jthread> workers;
  for (int i = 0; i < 4; ++i) {
    workers.emplace_back([&] {
      while (const auto key = queue.Get(stop.get_token())) {
        const size_t index = static_cast<size_t>(std::stoi(key->name));
        if (in_work[index].fetch_add(1) != 0) clash = true;
        seen[index] = latest[index].load();
        in_work[index].fetch_sub(1);
        queue.Done(*key);
      }
    });
  }
  {
    std::vector<std::jthread> producers;
    for (int p = 0; p < 2; ++p) {
      producers.emplace_back([&, p] {
        for (int i = 0; i < kAdditions; ++i) {
          const size_t index = static_cast<size_t>(i % (kKeys / 2) + p * kKeys / 2);
          latest[index].fetch_add(1);
          const ObjectKey key{"", std::to_string(index)};
          if (i % 3 == 0) {
            queue.AddAfter(key, std::chrono::microseconds(50));
          } else {
            queue.Add(key);
          }
        }
      });
    }
  }
  // Level-triggered: the last addition of every key must be seen, however many were folded into it.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  const auto all_seen = [&] {
    for (int i = 0; i < kKeys; ++i) {
      if (seen[static_cast<size_t>(i)] != latest[static_cast<size_t>(i)]) return false;
    }
    return true;
  };
  while (!all_seen() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_TRUE(all_seen());
  EXPECT_FALSE(clash.load());
  stop.request_stop();
}

TEST(WorkQueueThreaded, AWaitingWorkerWakesForADelayThatIsMovedForward) {
  WorkQueue queue({});
  queue.AddAfter({"", "a"}, std::chrono::hours(1));
  auto got = std::async(std::launch::async, [&] { return queue.Get({}); });
  queue.AddAfter({"", "a"}, std::chrono::milliseconds(1));
  ASSERT_EQ(got.wait_for(std::chrono::seconds(30)), std::future_status::ready);
  EXPECT_EQ(got.get()->name, "a");
}

TEST(WorkQueueThreaded, ShutDownAndStopWakeThoseWhoWait) {
  WorkQueue queue({});
  std::stop_source stop;
  auto stopped = std::async(std::launch::async, [&] { return queue.Get(stop.get_token()); });
  stop.request_stop();
  EXPECT_FALSE(stopped.get().has_value());
  auto shut = std::async(std::launch::async, [&] { return queue.Get({}); });
  queue.ShutDown();
  EXPECT_FALSE(shut.get().has_value());
}

}  // namespace
}  // namespace quern::control
