#include "runtime/base/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>

namespace quern {
namespace {

// Some 20 to 30 microseconds: more than the serial work between two loops of a forward pass, less
// than what would show as load when nothing is to be done.
constexpr int kSpins = 1000;

void Relax() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < std::min(threads, kMaxThreads); ++i) {
    workers_.emplace_back([this, i] { Work(i); });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  state_.fetch_add(kActive + kOpen + 1, std::memory_order_release);
  state_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::AwaitChange(uint32_t seen) const {
  for (int i = 0; i < kSpins; ++i) {
    if (state_.load(std::memory_order_acquire) != seen) return;
    Relax();
  }
  state_.wait(seen, std::memory_order_acquire);
}

void ThreadPool::TakeRanges(const Loop& loop, int thread) {
  for (;;) {
    const int64_t begin = next_.fetch_add(loop.grain, std::memory_order_relaxed);
    if (begin >= loop.count) return;
    loop.call(loop.context, begin, std::min(begin + loop.grain, loop.count), thread);
  }
}

void ThreadPool::Run(const Loop& loop) {
  if (loop.count <= 0) return;
  if (workers_.empty() || loop.count <= loop.grain) {
    for (int64_t begin = 0; begin < loop.count; begin += loop.grain) {
      loop.call(loop.context, begin, std::min(begin + loop.grain, loop.count), 0);
    }
    return;
  }
  loop_ = loop;
  next_.store(0, std::memory_order_relaxed);
  const uint32_t generation = (state_.load(std::memory_order_relaxed) >> 8) + 1;
  state_.store(generation << 8 | kOpen, std::memory_order_release);
  state_.notify_all();
  TakeRanges(loop, 0);
  uint32_t state = state_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
  while ((state & kActive) != 0) {
    AwaitChange(state);
    state = state_.load(std::memory_order_acquire);
  }
}

void ThreadPool::Work(int thread) {
  uint32_t generation = 0;
  for (;;) {
    uint32_t state = state_.load(std::memory_order_acquire);
    if (state >> 8 == generation) {
      AwaitChange(state);
      continue;
    }
    if (stopping_.load(std::memory_order_relaxed)) return;
    if ((state & kOpen) == 0) {
      generation = state >> 8;
      continue;
    }
    // Someone else may join at the same time, or the loop may close: look again.
    if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) continue;
    generation = state >> 8;
    TakeRanges(loop_, thread);
    state_.fetch_sub(1, std::memory_order_release);
    state_.notify_all();
  }
}

}  // namespace quern
