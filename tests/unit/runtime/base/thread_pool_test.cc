#include "runtime/base/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <numeric>

namespace quern {
namespace {

TEST(ThreadPool, EveryIndexIsVisitedExactlyOnce) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (int64_t grain : {0, 1, 3, 100, 5000}) {
        std::vector<int> visits(static_cast<size_t>(count), 0);
        pool.ParallelFor(count, grain, [&](int64_t begin, int64_t end, int) {
          EXPECT_LT(begin, end);
          EXPECT_LE(end - begin, std::max<int64_t>(1, grain));
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        for (int visit : visits) ASSERT_EQ(visit, 1);
      }
    }
  }
}

TEST(ThreadPool, WhatALoopWroteCanBeReadByTheNext) {
  ThreadPool pool(4);
  std::vector<int64_t> values(257, 1);
  // Each loop reads what other threads wrote in the one before.
  for (int round = 0; round < 2000; ++round) {
    std::vector<int64_t> next(values.size());
    pool.ParallelFor(static_cast<int64_t>(values.size()), 8, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const size_t from = (static_cast<size_t>(i) * 31 + 7) % values.size();
        next[static_cast<size_t>(i)] = values[from] + 1;
      }
    });
    values.swap(next);
  }
  for (int64_t value : values) EXPECT_EQ(value, 2001);
}

TEST(ThreadPool, NoTwoRangesAtATimeHaveTheSameThreadNumber) {
  ThreadPool pool(4);
  std::atomic<int> inside[4] = {};
  for (int round = 0; round < 200; ++round) {
    pool.ParallelFor(64, 1, [&](int64_t, int64_t, int thread) {
      ASSERT_GE(thread, 0);
      ASSERT_LT(thread, 4);
      EXPECT_EQ(inside[thread].fetch_add(1), 0);
      inside[thread].fetch_sub(1);
    });
  }
}

TEST(ThreadPool, ALoopEndsThoughAThreadIsHeldUpInTheLastOne) {
  // The workers come and go between loops of very different lengths, asleep or awake.
  ThreadPool pool(3);
  int64_t total = 0;
  for (int round = 0; round < 50; ++round) {
    std::atomic<int64_t> sum{0};
    pool.ParallelFor(round % 5, 1, [&](int64_t begin, int64_t, int) { sum += begin + 1; });
    total += sum;
    if (round % 10 == 0) std::this_thread::yield();
  }
  EXPECT_EQ(total, 10 * (0 + 1 + 3 + 6 + 10));
}

double ProcessCpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

TEST(ThreadPool, IdleThreadsSleep) {
  ThreadPool pool(4);
  pool.ParallelFor(100, 1, [](int64_t, int64_t, int) {});
  // Idle for a while on the clock; threads that spun would use several times that on the CPU's (or,
  // where there are fewer processors than threads, most of it).
  const double before = ProcessCpuSeconds();
  const auto start = std::chrono::steady_clock::now();
  std::mutex mutex;
  std::condition_variable never;
  std::unique_lock lock(mutex);
  never.wait_until(lock, start + std::chrono::milliseconds(200), [] { return false; });
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  EXPECT_LT(ProcessCpuSeconds() - before, 0.5 * elapsed.count());
}

TEST(ThreadPool, IsDestroyedWhileItsThreadsSleep) {
  for (int i = 0; i < 20; ++i) {
    std::atomic<int64_t> done{0};
    {
      ThreadPool pool(3);
      if (i % 2 == 0) {
        pool.ParallelFor(10, 1, [&](int64_t begin, int64_t end, int) { done += end - begin; });
      }
    }
    EXPECT_EQ(done.load(), i % 2 == 0 ? 10 : 0);
  }
}

}  // namespace
}  // namespace quern
