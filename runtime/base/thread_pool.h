#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace quern {

// Runs the pieces of one loop on a fixed number of threads, the caller's among them. Made for many
// short loops a millisecond: workers look for the next loop for a few tens of microseconds, then
// sleep until there is one. ParallelFor may be called from one thread at a time, and not from
// within a piece.
class ThreadPool {
 public:
  // `threads` counts the caller: 1 starts none. At most kMaxThreads.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  static constexpr int kMaxThreads = 128;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end, thread) for ranges of at most `grain` that together make up [0, count)
  // and returns when all have ended; what they wrote can then be read. `thread` (below threads())
  // is not shared by two ranges at a time: it selects scratch memory. Ranges are taken as threads
  // come free, so a thread that the system holds up delays the loop by one range at most. The body
  // must not throw.
  template <typename Body>
  void ParallelFor(int64_t count, int64_t grain, const Body& body) {
    const Loop loop{[](const void* context, int64_t begin, int64_t end, int thread) {
                      (*static_cast<const Body*>(context))(begin, end, thread);
                    },
                    &body, count, grain < 1 ? 1 : grain};
    Run(loop);
  }

 private:
  struct Loop {
    void (*call)(const void* context, int64_t begin, int64_t end, int thread);
    const void* context;
    int64_t count;
    int64_t grain;
  };

  void Run(const Loop& loop);
  void TakeRanges(const Loop& loop, int thread);
  void Work(int thread);
  void AwaitChange(uint32_t seen) const;

  // state_: generation of the loop (24 bits), whether workers may still join it, and how many are
  // in it (7 bits). A worker joins by counting itself in, so the caller waits for those at work
  // only, never for one that is still asleep.
  static constexpr uint32_t kActive = 0x7f;
  static constexpr uint32_t kOpen = 0x80;

  std::vector<std::thread> workers_;
  Loop loop_{};  // written while no worker is in a loop
  std::atomic<uint32_t> state_{0};
  alignas(64) std::atomic<int64_t> next_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace quern
