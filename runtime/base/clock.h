#pragma once

#include <chrono>

namespace quern {

using SteadyTime = std::chrono::steady_clock::time_point;
using Seconds = std::chrono::duration<double>;

// The time, behind an interface so that tests move it by hand. Implementations are thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual SteadyTime Now() const = 0;                                 // for durations
  virtual std::chrono::system_clock::time_point WallNow() const = 0;  // for people and Kubernetes
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
