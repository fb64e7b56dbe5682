#pragma once

#include <vector>

#include "kernels/simt/runtime/task.h"

namespace quern::simt {

// The host's side of asynchronous copies. The host may not touch their memory until it knows that
// they are done. So what is copied to the device is what was there when the copy was asked for, and
// must be unchanged when it is known to be done; what is copied to the host is poisoned at once,
// and comes only when the host, or work that is ordered after the copy, may look. Called with the
// scheduler's lock.
class HostTransfers {
 public:
  // A copy was asked for. False: it is not ordered after another one of the same memory, which is
  // then in the machine's report. `host_functions`: some are still to run, which may write
  // anything.
  bool Begin(const TaskRef& task, bool host_functions);
  // Before a task runs that may touch the host's memory.
  bool Prepare(Task& task);
  // Whoever knows this much may touch the host's memory of what is done. False: the host has done
  // so too early.
  bool Settle(const StreamClock& known);
  // The memory is about to be freed. False: a copy may be using it.
  bool MayFree(const Rows& memory);
  void Abandon();

 private:
  bool Finish(Task& task);

  std::vector<TaskRef> open_;  // as they were asked for
};

}  // namespace quern::simt
