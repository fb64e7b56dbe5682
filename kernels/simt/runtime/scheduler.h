#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "kernels/simt/runtime/host_transfers.h"
#include "kernels/simt/runtime/task.h"

namespace quern::simt {

using Lock = std::unique_lock<std::mutex>;

// Runs the work of all lines: one task at a time, in an order of the seed's among those that what
// comes before them allows, and only when somebody waits or asks. So work is late as on a slow
// device, and what nothing orders comes in any order. What the host knows to be done is a clock of
// its own, common to all of its threads: host_.
// Everything but Enter is called with its lock, which host functions run without.
class Scheduler {
 public:
  static Scheduler& Get() {
    static auto* scheduler = new Scheduler;  // as long as the program runs
    return *scheduler;
  }
  Lock Enter();

  Line NewLine(const std::string& name);
  // The line's next task. If it is wrong at once, that is the error that is taken next.
  TaskRef Enqueue(Line& line, const Work& work);

  // Runs what is needed for the task, and perhaps other work.
  void Run(const TaskRef& task, Lock& lock);
  // The host waits for the task, or for all.
  void WaitFor(const TaskRef& task, Lock& lock);
  void WaitForAll(Lock& lock);
  // Whether the task is done, after letting the device go on for a little. The host then knows it.
  bool Poll(const TaskRef& task, Lock& lock);
  // Whether something has failed since it was last asked; what had not been done then never is.
  bool TakeFailure();
  // What the machine's report holds has failed: everything that is still to do is given up.
  void Fail();
  const std::string& failure() const { return failure_; }

  // What the host is told of its memory before it frees it.
  HostTransfers& transfers() { return transfers_; }
  // The host's own next step, as an operation that comes after all it knows.
  OperationRef HostOperation(const char* name, Where where);
  // Whether the host knows all of the work that has used the memory so far.
  const StreamClock& host() const { return host_; }

 private:
  TaskRef Pick();
  // Until another thread has done something, or, where work waits for another process, a little.
  void WaitForOthers(Lock& lock);
  void Execute(const TaskRef& task, Lock& lock);
  void Finish(const TaskRef& task);
  void ExplainUninitialised(const Task& task);
  void HostLearns(const StreamClock& clock);
  uint64_t Random();
  void WatchHostFunctions();

  std::mutex mutex_;
  std::condition_variable changed_;
  uint32_t lines_ = 0;
  uint64_t tasks_ = 0;
  std::vector<TaskRef> pending_;  // not done, as they were asked for
  std::vector<TaskRef> ready_;    // nothing must come before these
  int host_functions_ = 0;        // not done
  bool watched_ = false;
  uint64_t calls_ = 0;  // of Enter
  StreamClock host_;
  StreamClock latest_;  // all there is
  HostTransfers transfers_;
  bool failed_ = false;
  std::string failure_;
  uint64_t random_ = 0;
  uint64_t options_ = ~uint64_t{0};  // Machine::options_set when random_ began
};

}  // namespace quern::simt
