#include "kernels/simt/runtime/scheduler.h"

#include <algorithm>
#include <thread>

#include "kernels/simt/machine.h"

namespace quern::simt {
namespace {

// Host functions run after this much time even if no thread of the host calls the runtime: one may
// be waiting for them by other means.
constexpr std::chrono::milliseconds kPatience{50};
// Between two looks at work that waits for another process.
constexpr std::chrono::microseconds kGlance{50};

bool MayBegin(const TaskRef& task) { return !task->work.may_begin || task->work.may_begin(); }

}  // namespace

Lock Scheduler::Enter() {
  Lock lock(mutex_);
  ++calls_;
  return lock;
}

Line Scheduler::NewLine(const std::string& name) {
  Line line;
  line.id = lines_++;
  line.name = name;
  return line;
}

OperationRef Scheduler::HostOperation(const char* name, Where where) {
  auto operation = std::make_shared<Operation>();
  operation->number = ++tasks_;
  operation->known = host_;
  operation->name = name;
  operation->line = "the host";
  operation->where = where;
  return operation;
}

TaskRef Scheduler::Enqueue(Line& line, const Work& work) {
  auto task = std::make_shared<Task>();
  task->number = ++tasks_;
  task->stamp = {line.id, ++line.count};
  line.clock.Join(host_);
  line.clock.Learn(task->stamp);
  latest_.Learn(task->stamp);
  task->known = line.clock;
  task->name = work.name;
  task->line = line.name;
  task->where = work.where;
  task->work = work;
  line.waits.push_back(line.last);
  for (const TaskRef& before : line.waits) {
    if (before == nullptr || before->done) continue;
    before->successors.push_back(task);
    ++task->unmet;
  }
  line.waits.clear();
  line.last = task;
  pending_.push_back(task);
  if (task->unmet == 0) ready_.push_back(task);
  if (work.kind == Work::Kind::kHostFunction) {
    ++host_functions_;
    WatchHostFunctions();
  }
  if (work.host_use != HostUse::kNone && !transfers_.Begin(task, host_functions_ > 0)) Fail();
  return task;
}

uint64_t Scheduler::Random() {
  const Machine& machine = Machine::Get();
  if (options_ != machine.options_set()) {
    options_ = machine.options_set();
    random_ = machine.wanted_options().seed * 0x9e3779b97f4a7c15ull + 0x7654321;
  }
  random_ ^= random_ >> 12;
  random_ ^= random_ << 25;
  random_ ^= random_ >> 27;
  return (random_ * 0x2545f4914f6cdd1dull) >> 16;
}

// Seed 0: as they were asked for.
TaskRef Scheduler::Pick() {
  const auto waiting = std::stable_partition(ready_.begin(), ready_.end(), MayBegin);
  if (waiting == ready_.begin()) return nullptr;
  auto next = std::min_element(ready_.begin(), waiting, [](const TaskRef& a, const TaskRef& b) {
    return a->number < b->number;
  });
  if (Machine::Get().wanted_options().seed != 0) {
    const auto count = static_cast<uint64_t>(waiting - ready_.begin());
    next = ready_.begin() + static_cast<std::ptrdiff_t>(Random() % count);
  }
  TaskRef task = *next;
  ready_.erase(next);
  return task;
}

void Scheduler::Execute(const TaskRef& task, Lock& lock) {
  bool right = transfers_.Prepare(*task);
  if (right && task->work.call) {
    lock.unlock();
    task->work.call();
    lock.lock();
    // Whatever it has done may have told the host's threads that it is done.
    if (!task->done) HostLearns(task->known);
  } else if (right && task->work.run) {
    right = task->work.run(task);
  }
  if (task->done) return;  // given up while its function ran
  if (right) {
    Finish(task);
  } else {
    ExplainUninitialised(*task);
    Fail();
  }
}

// The race with what is still to write has not come to be one.
void Scheduler::ExplainUninitialised(const Task& task) {
  Machine& machine = Machine::Get();
  if (machine.report().errors.at(0).fault != Fault::kUninitialised) return;
  for (const TaskRef& other : pending_) {
    if (other->number >= task.number) return;
    if (other->work.run == nullptr || task.After(*other)) continue;
    machine.AddToError("; still to come, as nothing orders it before: " + other->Text());
    return;
  }
}

void Scheduler::Finish(const TaskRef& task) {
  task->done = true;
  task->finished = std::chrono::steady_clock::now();
  task->work.run = nullptr;
  if (task->work.kind == Work::Kind::kHostFunction) --host_functions_;
  for (const TaskRef& next : task->successors) {
    if (--next->unmet == 0) ready_.push_back(next);
  }
  task->successors.clear();
  const auto at =
      std::lower_bound(pending_.begin(), pending_.end(), task,
                       [](const TaskRef& a, const TaskRef& b) { return a->number < b->number; });
  pending_.erase(at);
  changed_.notify_all();
}

void Scheduler::Run(const TaskRef& task, Lock& lock) {
  while (task != nullptr && !task->done) {
    const TaskRef next = Pick();
    if (next != nullptr) {
      Execute(next, lock);
    } else {
      WaitForOthers(lock);
    }
  }
}

// Nothing can be done: another thread is in a host function that must come first, or another
// process is awaited.
void Scheduler::WaitForOthers(Lock& lock) {
  if (ready_.empty()) {
    changed_.wait(lock);
  } else {
    changed_.wait_for(lock, kGlance);
  }
}

void Scheduler::WaitFor(const TaskRef& task, Lock& lock) {
  if (task == nullptr) return;
  Run(task, lock);
  if (!failed_) HostLearns(task->known);
}

void Scheduler::WaitForAll(Lock& lock) {
  const StreamClock all = latest_;
  const std::vector<TaskRef> tasks = pending_;
  for (const TaskRef& task : tasks) Run(task, lock);
  if (!failed_) HostLearns(all);
}

bool Scheduler::Poll(const TaskRef& task, Lock& lock) {
  if (task == nullptr) return true;
  const bool goes_on = Machine::Get().wanted_options().seed == 0 || Random() % 2 == 0;
  if (!task->done && goes_on) {
    const TaskRef next = Pick();
    if (next != nullptr) Execute(next, lock);
  }
  if (!task->done) return false;
  if (!failed_) HostLearns(task->known);
  return true;
}

void Scheduler::HostLearns(const StreamClock& clock) {
  host_.Join(clock);
  if (!transfers_.Settle(host_)) {
    Fail();
    return;
  }
  StreamClock floor = host_;
  for (const TaskRef& task : pending_) floor.Meet(task->known);
  Machine::Get().global().Forget(floor);
}

void Scheduler::Fail() {
  failed_ = true;
  failure_ = Machine::Get().report().errors.at(0).text;
  for (const TaskRef& task : pending_) {
    task->done = true;
    task->finished = std::chrono::steady_clock::now();
    task->work.run = nullptr;
    task->successors.clear();
  }
  pending_.clear();
  ready_.clear();
  host_functions_ = 0;
  transfers_.Abandon();
  host_.Join(latest_);
  Machine::Get().global().Forget(host_);
  changed_.notify_all();
}

bool Scheduler::TakeFailure() { return std::exchange(failed_, false); }

void Scheduler::WatchHostFunctions() {
  if (watched_) return;
  watched_ = true;
  std::thread([this] {
    Lock lock(mutex_);
    for (;;) {
      const uint64_t calls = calls_;
      lock.unlock();
      std::this_thread::sleep_for(kPatience);
      lock.lock();
      while (host_functions_ > 0 && calls == calls_) {
        const TaskRef next = Pick();
        if (next == nullptr) break;
        Execute(next, lock);
      }
    }
  }).detach();
}

}  // namespace quern::simt
