#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/simt/operation.h"

// What streams are made of: work that the host asks for, and its tasks in the order that streams,
// events and graphs give them.
namespace quern::simt {

struct Task;
using TaskRef = std::shared_ptr<Task>;

// Rows of `width` bytes in memory, `pitch` bytes from the start of one to that of the next.
struct Rows {
  uint8_t* first = nullptr;
  size_t pitch = 0;
  size_t width = 0;
  size_t height = 0;

  size_t bytes() const { return width * height; }
  // From the first row's start to the last one's end.
  size_t extent() const { return height == 0 ? 0 : (height - 1) * pitch + width; }
  uint8_t* Row(size_t row) const { return first + row * pitch; }
};
bool Overlap(const Rows& a, const Rows& b);

enum class HostUse { kNone, kRead, kWrite };

// What is to be done, once or, in a graph, each time that it is launched.
struct Work {
  enum class Kind { kKernel, kCopy, kSet, kHostFunction, kAllocate, kFree, kMarker };

  Kind kind = Kind::kMarker;
  std::string name;
  Where where{};
  const void* entry = nullptr;  // of a kernel or host function
  // Whether what comes from outside of this process is there; null: nothing has to.
  std::function<bool()> may_begin;
  // Does it to the device; false: an error, which is in the machine's report. Null: nothing to do.
  std::function<bool(const TaskRef& task)> run;
  // Of a host function: called without the lock.
  std::function<void()> call;
  Rows host;  // memory of the host's
  HostUse host_use = HostUse::kNone;
  bool host_waits = false;  // until it is done: nobody can come in between
};

// Work in a line. What Operation holds does not change any more; the rest is the scheduler's.
struct Task : Operation {
  Work work;
  bool done = false;
  int unmet = 0;  // tasks that must come before it and are not done
  std::vector<TaskRef> successors;
  std::chrono::steady_clock::time_point finished;

  // host_transfers.cc: the host's bytes as they were when they had to be right, or as they are to
  // be.
  std::vector<uint8_t> bytes;
  bool taken = false;     // `bytes` hold what is to be copied to the device
  bool poisoned = false;  // the host's memory holds nothing until the copy is done
  bool guarded = false;
};

// A stream, or a branch of a graph.
struct Line {
  uint32_t id = 0;
  uint32_t count = 0;  // of tasks so far
  std::string name;
  TaskRef last;
  StreamClock clock;           // what the next task comes after
  std::vector<TaskRef> waits;  // for these, beside the last one

  void WaitFor(const TaskRef& task) {
    if (task == nullptr) return;
    clock.Join(task->known);
    if (!task->done) waits.push_back(task);
  }
};

}  // namespace quern::simt
