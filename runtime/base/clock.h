#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>

namespace quern {

using SteadyTime = std::chrono::steady_clock::time_point;
using Seconds = std::chrono::duration<double>;

// The time, behind an interface so that tests move it by hand. Implementations are thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual SteadyTime Now() const = 0;                                 // for durations
  virtual std::chrono::system_clock::time_point WallNow() const = 0;  // for people and Kubernetes
  // With `lock` held: waits until `done` holds, asked whenever `changed` is notified, or `patience`
  // is over. Whether it holds. By the machine's time, whatever Now says, unless overridden.
  virtual bool WaitFor(std::condition_variable& changed, std::unique_lock<std::mutex>& lock,
                       std::chrono::nanoseconds patience, const std::function<bool()>& done) const {
    return changed.wait_for(lock, patience, done);
  }
};

// The process's real clock; lives for ever.
const Clock& RealClock();

// Moves only when told to. Not thread-safe.
class ManualClock : public Clock {
 public:
  SteadyTime Now() const override { return SteadyTime(elapsed_); }
  std::chrono::system_clock::time_point WallNow() const override {
    return std::chrono::system_clock::time_point(
        std::chrono::duration_cast<std::chrono::system_clock::duration>(elapsed_));
  }
  void Advance(std::chrono::nanoseconds by) { elapsed_ += by; }

 private:
  std::chrono::nanoseconds elapsed_{0};
};

}  // namespace quern
