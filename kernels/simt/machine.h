#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels/simt/clock.h"
#include "kernels/simt/device.h"
#include "kernels/simt/fiber.h"
#include "kernels/simt/global_memory.h"
#include "kernels/simt/program.h"
#include "kernels/simt/shared_memory.h"
#include "kernels/simt/simt.h"
#include "kernels/simt/traffic.h"

// The emulated device: blocks, warps and threads of a launch, and who runs next. For the emulator's
// own files.
namespace quern::simt {

inline constexpr int kWarpLanes = 32;
inline constexpr int kMaxBlockThreads = 1024;

struct Block;
struct Warp;

struct PendingCopy {
  uint8_t* to;
  const uint8_t* from;
  std::array<uint8_t, 16> data;  // read when it was issued, if `read`
  int bytes;
  bool read;
  int64_t offset;  // in the window of shared memory
  int64_t group;
  Site site;
};

struct Thread {
  Block* block = nullptr;
  Warp* warp = nullptr;
  int number = 0;  // within the block
  int lane = 0;
  Index index{};
  Stack stack;
  Context context = nullptr;
  bool exited = false;
  ThreadClock clock;

  const char* waits_for = nullptr;  // the operation, for errors; null: it does not wait
  Where waits_at{};
  int result = 0;  // of the barrier that it waited at

  std::vector<PendingCopy> copies;  // oldest first
  int64_t copy_group = 0;           // of the next copy

  Toucher toucher() const;
};

enum class WarpOp { kBarrier, kShuffle, kVote, kMatch, kReduce, kLoadMatrix, kMma };

// What the lanes of a warp bring to an operation that they carry out together.
struct Meeting {
  WarpOp op;
  uint32_t mask;
  uint32_t arrived = 0;
  const char* name;
  Where where;
  // Called once, by the lane that comes last, with what each lane brought.
  void (*finish)(Warp& warp, const Meeting& meeting);
  std::array<void*, kWarpLanes> operands{};
};

struct Warp {
  Block* block = nullptr;
  int number = 0;
  std::array<Thread*, kWarpLanes> lanes{};
  uint32_t exists = 0;
  uint32_t exited = 0;
  uint32_t ready = 0;
  std::vector<Meeting> meetings;
  TrafficLog traffic;
};

struct Barrier {
  int expected = 0;  // threads; 0: nobody has come
  int arrived = 0;
  int sum = 0;
  const char* name = nullptr;
  Where where{};
  std::vector<Thread*> waiting;
  std::vector<ThreadClock> clocks;  // as they were on arrival, with
  std::vector<int> numbers;         // whose they were
};

struct Block {
  Index index{};
  uint32_t number = 0;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  uint32_t ready_warps = 0;
  int exited = 0;
  std::array<Barrier, 16> barriers;
  SharedMemory shared;
};

// What most accesses need: those to the running thread's own stack are none of the machine's.
struct Running {
  Thread* thread = nullptr;
  uintptr_t stack = 0;
  uintptr_t stack_bytes = 0;

  void Set(Thread* now) {
    thread = now;
    stack = now == nullptr ? 0 : reinterpret_cast<uintptr_t>(now->stack.low);
    stack_bytes = now == nullptr ? 0 : static_cast<uintptr_t>(now->stack.high - now->stack.low);
  }
};
inline constinit thread_local Running running;  // of the thread of the host that launched

class Machine {
 public:
  static Machine& Get() {
    if (instance_ == nullptr) instance_ = new Machine;  // as long as the program runs
    return *instance_;
  }

  // `operation`: what the launch is to the order of the device's work; null: of no concern to it.
  Report Run(const Kernel& kernel, Dim3 grid, Dim3 block, size_t dynamic_shared,
             const OperationRef& operation = nullptr);

  // transfer.cc: a copy or set of the host's begins; touches device memory (false: an error, which
  // is in the report); ends (false: it is not ordered after other work, which is in the report).
  void BeginTransfer(const OperationRef& operation);
  bool TouchForTransfer(const void* memory, size_t bytes, Touch touch);
  bool EndTransfer();
  // The end of an allocation's life at its turn in a stream.
  bool FreeInOrder(void* memory, const OperationRef& operation);
  // An error of the host's code. The report holds nothing else then.
  void ReportHostFault(Fault fault, const std::string& text, const Operation& operation);

  // The running thread. Of a kernel's functions only.
  Thread& current() { return *running.thread; }
  // Others may run now, and do if the seed says so.
  void MaybeYield(Site site = 0);
  // The current thread waits until Wake.
  void Wait(const char* what, Where where);
  void Wake(Thread& thread);
  // Some thread got further: this is no hang.
  void Progress() { spins_ = 0; }

  // sync.cc: the current thread comes to a barrier, or to what the lanes of `mask` do together.
  void ArriveAtBarrier(int id, int expected, int value, bool wait, const char* name, Where where);
  void Meet(WarpOp op, uint32_t mask, void* operand,
            void (*finish)(Warp& warp, const Meeting& meeting), const char* name, Where where);
  // Those for which nobody is missing any more.
  void FinishMeetings(Warp& warp);

  // Ends the launch with an error of the current thread. `site` or `where` say where, if known.
  [[noreturn]] void Fail(Fault fault, const std::string& text, Site site = 0, Where where = {});

  // Sites in error texts: replaced by source lines once the kernel has stopped.
  static std::string Mark(Site site) { return "\x01" + std::to_string(site) + "\x02"; }

  uint64_t Random();

  // access.cc
  void Access(uintptr_t address, size_t bytes, Touch touch, bool vector, Site site);
  // The place of shared memory in bounds, or an error of the current thread.
  SharedLayout::Place FindShared(uintptr_t address, size_t bytes, Touch touch, Site site);
  // Checks what else there is to check of an access by `thread`, and notes it.
  void TouchShared(Thread& thread, int64_t offset, size_t bytes, Touch touch, Site site);
  // The allocation that holds the address; variables of the program's become one.
  GlobalMemory::Allocation* FindGlobal(uintptr_t address);
  void TouchGlobal(uintptr_t address, size_t bytes, Touch touch, Site site);
  void CheckAligned(uintptr_t address, size_t bytes, Touch touch, Site site);
  bool IsShared(uintptr_t address) const { return layout_->Contains(address); }
  void LogTraffic(Space space, bool write, uint64_t address, size_t bytes, Site site);

  Counts& counts() { return report_.counts; }
  bool counts_traffic() const { return options_.count_traffic; }
  const Options& options() const { return options_; }
  GlobalMemory& global() { return global_; }
  SharedLayout& layout() { return *layout_; }
  Dim3 grid() const { return grid_; }
  Dim3 block() const { return block_; }

  // The current thread has read, or written, an address that is meant to meet other threads: with
  // fences before the write and after the read, this orders threads of all blocks.
  void MeetAt(uintptr_t address, bool reads, bool writes);

  void set_options(const Options& options) {
    wanted_ = options;
    ++options_set_;
  }
  // How often options have been set.
  uint64_t options_set() const { return options_set_; }
  Options wanted_options() const { return wanted_; }
  const Report& report() const { return report_; }
  // What else may be behind the error that ended the last operation.
  void AddToError(const std::string& text) { report_.errors.at(0).text += text; }

  std::string Who(uint32_t block, int thread) const;
  Index ThreadIndexOf(int number) const;
  Index BlockIndexOf(uint32_t number) const;

 private:
  void ReportConflict(const GlobalMemory::Conflict& conflict);
  static void RunThread(boost::context::detail::transfer_t from);

  void CheckLaunch(size_t dynamic_shared);
  void OrderBlocks();
  void StartBlocks();
  void StartBlock(uint32_t number);
  void RetireBlocks();
  void Retire(std::unique_ptr<Block> block);
  void Loop();
  Thread* PickNext(bool yielding);
  Block* PickBlock(bool yielding);
  void RunNext(bool yielding);
  void Resume(Thread* thread);  // null: the launch's own stack
  void MakeCurrentBlock(Block* block);
  void ExitThread();
  void ReportStuck();
  void AddError(Fault fault, const std::string& text, const Thread* thread, Site site, Where where);

  static inline constinit Machine* instance_ = nullptr;

  Machine();  // seed: QUERN_SIMT_SEED, if that is set

  Options wanted_;
  uint64_t options_set_ = 0;
  Options options_;
  GlobalMemory global_;
  StackPool stacks_;

  // One launch's.
  std::unordered_map<uintptr_t, BlocksRef> published_;  // by atomics, by address
  Report report_;
  Kernel kernel_{};
  Dim3 grid_;
  Dim3 block_;
  OperationRef operation_;
  bool of_kernel_ = true;  // the report, else of another operation
  std::unique_ptr<SharedLayout> layout_;
  std::vector<std::unique_ptr<Block>> blocks_;  // in progress
  std::vector<std::unique_ptr<Block>> spare_;
  std::vector<uint32_t> order_;  // in which blocks begin; empty: their own
  uint64_t begun_ = 0;
  Block* loaded_ = nullptr;  // whose shared memory lies in its place
  Context main_ = nullptr;
  uint64_t random_ = 0;
  int64_t spins_ = 0;
  bool failed_ = false;
};

inline Toucher Thread::toucher() const { return {clock, block->number, number}; }

}  // namespace quern::simt
