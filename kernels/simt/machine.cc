#include "kernels/simt/machine.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <numeric>

// To kernels (cuda_language.h) these are constants.
quern::simt::Index blockDim;
quern::simt::Index gridDim;

namespace quern::simt {
namespace {

constexpr uint64_t kMaxShuffledBlocks = 1 << 16;

// One of the set bits: the first one from bit `from` on, around the end.
int BitFrom(uint32_t bits, unsigned from) {
  return static_cast<int>(
      (static_cast<unsigned>(std::countr_zero(std::rotr(bits, static_cast<int>(from % 32)))) +
       from) %
      32);
}

Index ToIndex(uint64_t number, Dim3 size) {
  return {static_cast<unsigned>(number % size.x), static_cast<unsigned>(number / size.x % size.y),
          static_cast<unsigned>(number / size.x / size.y)};
}

}  // namespace

Machine::Machine() {
  const char* seed = std::getenv("QUERN_SIMT_SEED");
  if (seed != nullptr) wanted_.seed = std::strtoull(seed, nullptr, 10);
}

uint64_t Machine::Random() {
  random_ ^= random_ >> 12;
  random_ ^= random_ << 25;
  random_ ^= random_ >> 27;
  return (random_ * 0x2545f4914f6cdd1dull) >> 16;
}

Index Machine::ThreadIndexOf(int number) const {
  return ToIndex(static_cast<uint64_t>(number), block_);
}
Index Machine::BlockIndexOf(uint32_t number) const { return ToIndex(number, grid_); }

void Machine::CheckLaunch(size_t dynamic_shared) {
  const uint64_t threads = block_.count();
  const auto bad = [this](const std::string& text) {
    AddError(Fault::kBadLaunch, text, nullptr, 0, {});
  };
  if (threads == 0 || threads > kMaxBlockThreads || block_.x > 1024 || block_.y > 1024 ||
      block_.z > 64) {
    bad("a block of " + std::to_string(block_.x) + " x " + std::to_string(block_.y) + " x " +
        std::to_string(block_.z) + " threads; 1 to 1024 are right, 64 in z");
  } else if (grid_.count() == 0 || grid_.x > 0x7fffffff || grid_.y > 65535 || grid_.z > 65535 ||
             grid_.count() > 0xffffffff) {
    bad("a grid of " + std::to_string(grid_.x) + " x " + std::to_string(grid_.y) + " x " +
        std::to_string(grid_.z) + " blocks");
  } else if (dynamic_shared > kMaxDynamicShared) {
    bad(std::to_string(dynamic_shared) + " bytes of dynamic shared memory; a block can have " +
        std::to_string(kMaxDynamicShared));
  }
}

Report Machine::Run(const Kernel& kernel, Dim3 grid, Dim3 block, size_t dynamic_shared,
                    const OperationRef& operation) {
  options_ = wanted_;
  kernel_ = kernel;
  grid_ = grid;
  block_ = block;
  operation_ = operation;
  of_kernel_ = true;
  report_ = {};
  report_.kernel = Program::Get().FunctionName(kernel.entry);
  report_.grid = grid;
  report_.block = block;
  report_.dynamic_shared_bytes = dynamic_shared;
  failed_ = false;
  CheckLaunch(dynamic_shared);
  if (failed_) return report_;
  blockDim = {block.x, block.y, block.z};
  gridDim = {grid.x, grid.y, grid.z};
  global_.Begin();
  spins_ = 0;
  random_ = options_.seed * 0x9e3779b97f4a7c15ull + 0x1234567;
  layout_ = std::make_unique<SharedLayout>(dynamic_shared);
  begun_ = 0;
  OrderBlocks();
  Loop();
  running.Set(nullptr);
  loaded_ = nullptr;
  while (!blocks_.empty()) {  // given up
    Retire(std::move(blocks_.back()));
    blocks_.pop_back();
  }
  published_.clear();
  report_.counts.global_sectors = global_.Sectors();
  if (!failed_ && operation_ != nullptr) {
    if (const auto conflict = global_.End(operation_)) ReportConflict(*conflict);
  }
  if (options_.on_kernel) options_.on_kernel(report_);
  return report_;
}

// Blocks begin in no order that a kernel could rely on.
void Machine::OrderBlocks() {
  order_.clear();
  if (options_.seed == 0 || grid_.count() > kMaxShuffledBlocks) return;
  order_.resize(grid_.count());
  std::iota(order_.begin(), order_.end(), 0);
  for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[Random() % i]);
}

void Machine::Loop() {
  while (!failed_) {
    RetireBlocks();
    StartBlocks();
    if (blocks_.empty()) return;
    Thread* next = PickNext(false);
    if (next == nullptr) {
      ReportStuck();
      return;
    }
    Resume(next);  // until a block has ended, no thread can run, or one has failed
  }
}

void Machine::StartBlocks() {
  const auto resident = static_cast<size_t>(std::max(1, options_.resident_blocks));
  while (blocks_.size() < resident && begun_ < grid_.count()) {
    StartBlock(order_.empty() ? static_cast<uint32_t>(begun_) : order_[begun_]);
    ++begun_;
  }
}

void Machine::StartBlock(uint32_t number) {
  std::unique_ptr<Block> block;
  if (spare_.empty()) {
    block = std::make_unique<Block>();
  } else {
    block = std::move(spare_.back());
    spare_.pop_back();
  }
  const int threads = static_cast<int>(block_.count());
  block->number = number;
  block->index = BlockIndexOf(number);
  block->exited = 0;
  block->ready_warps = 0;
  block->barriers = {};
  block->shared.Clear(*layout_);
  block->threads.clear();
  block->threads.resize(static_cast<size_t>(threads));
  block->warps.assign(static_cast<size_t>((threads + kWarpLanes - 1) / kWarpLanes), {});
  auto clock = std::make_shared<Clock>();
  clock->own.resize(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) {
    Thread& thread = block->threads[static_cast<size_t>(i)];
    Warp& warp = block->warps[static_cast<size_t>(i / kWarpLanes)];
    thread.block = block.get();
    thread.warp = &warp;
    thread.number = i;
    thread.lane = i % kWarpLanes;
    thread.index = ThreadIndexOf(i);
    thread.stack = stacks_.Take();
    thread.context = MakeContext(thread.stack, RunThread);
    thread.clock.known = clock;
    warp.block = block.get();
    warp.number = i / kWarpLanes;
    warp.lanes[static_cast<size_t>(thread.lane)] = &thread;
    warp.exists |= 1u << thread.lane;
    warp.ready = warp.exists;
    block->ready_warps |= 1u << warp.number;
  }
  ++report_.counts.blocks;
  report_.counts.threads += threads;
  blocks_.push_back(std::move(block));
}

void Machine::Retire(std::unique_ptr<Block> block) {
  if (loaded_ == block.get()) loaded_ = nullptr;
  for (Thread& thread : block->threads) stacks_.Give(thread.stack);
  spare_.push_back(std::move(block));
}

void Machine::RetireBlocks() {
  for (size_t i = blocks_.size(); i-- > 0;) {
    if (blocks_[i]->exited < static_cast<int>(blocks_[i]->threads.size())) continue;
    Retire(std::move(blocks_[i]));
    blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

Block* Machine::PickBlock(bool yielding) {
  const bool leave = yielding && blocks_.size() > 1 &&
                     (options_.seed == 0 ? spins_ % 64 == 63 : Random() % 16 == 0);
  if (loaded_ != nullptr && loaded_->ready_warps != 0 && !leave) return loaded_;
  const size_t start = options_.seed == 0 ? 0 : Random() % blocks_.size();
  for (size_t i = 0; i < blocks_.size(); ++i) {
    Block* block = blocks_[(start + i) % blocks_.size()].get();
    if (block->ready_warps != 0 && (block != loaded_ || i + 1 == blocks_.size())) return block;
  }
  return loaded_ != nullptr && loaded_->ready_warps != 0 ? loaded_ : nullptr;
}

// Seed 0: lane after lane, and of another warp only when this one's have all stopped, or yield.
// Else a warp goes on for a random while, its lanes in random order.
Thread* Machine::PickNext(bool yielding) {
  Block* block = PickBlock(yielding);
  if (block == nullptr) return nullptr;
  const bool same = running.thread != nullptr && running.thread->block == block;
  const uint64_t random = options_.seed == 0 ? 0 : Random();
  const auto here = static_cast<unsigned>(same ? running.thread->warp->number : 0);
  bool stay = same && running.thread->warp->ready != 0;
  if (options_.seed == 0) {
    stay = stay && !yielding;
  } else {
    stay = stay && random % 8 != 0;
  }
  const unsigned from = options_.seed == 0 ? here + 1 : static_cast<unsigned>(random >> 8);
  const int number = stay ? static_cast<int>(here) : BitFrom(block->ready_warps, from);
  Warp& warp = block->warps[static_cast<size_t>(number)];
  unsigned first_lane = static_cast<unsigned>(random >> 16);
  if (options_.seed == 0) {
    first_lane =
        same && running.thread->warp == &warp ? static_cast<unsigned>(running.thread->lane) + 1 : 0;
  }
  return warp.lanes[static_cast<size_t>(BitFrom(warp.ready, first_lane))];
}

void Machine::MakeCurrentBlock(Block* block) {
  if (loaded_ == block) return;
  if (loaded_ != nullptr) loaded_->shared.Save(*layout_);
  block->shared.Load(*layout_);
  loaded_ = block;
}

void Machine::Resume(Thread* thread) {
  if (thread != nullptr) {
    MakeCurrentBlock(thread->block);
    thread->warp->ready &= ~(1u << thread->lane);
    if (thread->warp->ready == 0) thread->block->ready_warps &= ~(1u << thread->warp->number);
  }
  if (thread == running.thread) return;
  ++report_.counts.switches;
  Context* here = running.thread == nullptr ? &main_ : &running.thread->context;
  running.Set(thread);
  Switch(here, thread == nullptr ? main_ : thread->context);
}

void Machine::RunNext(bool yielding) { Resume(PickNext(yielding)); }

void Machine::Wake(Thread& thread) {
  thread.waits_for = nullptr;
  thread.warp->ready |= 1u << thread.lane;
  thread.block->ready_warps |= 1u << thread.warp->number;
}

void Machine::Wait(const char* what, Where where) {
  running.thread->waits_for = what;
  running.thread->waits_at = where;
  RunNext(false);
}

void Machine::MaybeYield(Site site) {
  if (++spins_ > options_.spin_limit) {
    Fail(Fault::kHang,
         "the kernel spins: for " + std::to_string(options_.spin_limit) +
             " turns its threads have only polled, and no thread got further",
         site);
  }
  const bool yield = options_.seed == 0 ? spins_ % 8 == 7 : Random() % 2 == 0;
  if (!yield) return;
  Wake(*running.thread);
  RunNext(true);
}

void Machine::RunThread(boost::context::detail::transfer_t from) {
  Arrived(from);
  Machine& machine = Get();
  machine.kernel_.run(machine.kernel_.arguments);
  machine.ExitThread();
}

void Machine::ExitThread() {
  Thread& thread = *running.thread;
  Warp& warp = *thread.warp;
  thread.exited = true;
  thread.copies.clear();
  warp.exited |= 1u << thread.lane;
  ++thread.block->exited;
  Progress();
  for (const Meeting& meeting : warp.meetings) {
    if ((meeting.mask >> thread.lane & 1) == 0 || meeting.op == WarpOp::kBarrier) continue;
    Fail(Fault::kExitedLane,
         "lane " + std::to_string(thread.lane) + " has ended, but other lanes wait for it in " +
             meeting.name + " with the mask " + std::to_string(meeting.mask),
         0, meeting.where);
  }
  FinishMeetings(warp);
  if (warp.exited == warp.exists && counts_traffic())
    warp.traffic.Flush(report_.counts, options_.watched);
  if (thread.block->exited == static_cast<int>(thread.block->threads.size())) {
    Resume(nullptr);
  } else {
    RunNext(false);
  }
  std::abort();  // a thread that has ended is never resumed
}

void Machine::Fail(Fault fault, const std::string& text, Site site, Where where) {
  AddError(fault, text, running.thread, site, where);
  Resume(nullptr);
  std::abort();  // nor is one that failed
}

}  // namespace quern::simt
