#include "kernels/simt/device.h"

#include <bit>
#include <cstring>

#include "kernels/simt/machine.h"

namespace quern::simt {
namespace {

Thread& Current() { return *running.thread; }

// Of the lane's operand at a meeting.
template <typename T>
T& OperandOf(const Meeting& meeting, int lane) {
  return *static_cast<T*>(meeting.operands[static_cast<size_t>(lane)]);
}

template <typename Fn>
void ForLanes(uint32_t mask, Fn fn) {
  for (; mask != 0; mask &= mask - 1) fn(std::countr_zero(mask));
}

void CheckNamed(int barrier, int threads, const char* name, Where where) {
  if (barrier < 0 || barrier > 15) {
    Machine::Get().Fail(
        Fault::kBadArgument,
        std::string(name) + " of barrier " + std::to_string(barrier) + "; there are 0 to 15", 0,
        where);
  }
  const auto all = static_cast<int>(Current().block->threads.size());
  if (threads < 0 || threads % kWarpLanes != 0 || threads > (all + 31) / 32 * 32) {
    Machine::Get().Fail(Fault::kBadArgument,
                        std::string(name) + " of " + std::to_string(threads) +
                            " threads; a multiple of 32 is right, up to the block's " +
                            std::to_string(all),
                        0, where);
  }
}

int BlockThreads() { return static_cast<int>(Current().block->threads.size()); }

struct ShuffleOperand {
  uint64_t value;
  uint64_t result;
  int argument;
  int width;
  ShuffleKind kind;
};

// The lane that `lane` reads from, as the PTX ISA (9.7.9.6, shfl.sync) computes it.
int ShuffleSource(const ShuffleOperand& one, int lane) {
  const int first = lane / one.width * one.width;
  int source = lane;
  switch (one.kind) {
    case ShuffleKind::kIndex:
      source = first + (one.argument & (one.width - 1));
      break;
    case ShuffleKind::kUp:
      source = lane - one.argument;
      break;
    case ShuffleKind::kDown:
      source = lane + one.argument;
      break;
    case ShuffleKind::kXor:
      source = lane ^ one.argument;
      break;
  }
  if (one.kind == ShuffleKind::kXor) return source >= first + one.width ? lane : source;
  return source < first || source >= first + one.width ? lane : source;
}

void FinishShuffle(Warp& warp, const Meeting& meeting) {
  ForLanes(meeting.mask, [&](int lane) {
    auto& one = OperandOf<ShuffleOperand>(meeting, lane);
    const int source = ShuffleSource(one, lane);
    if ((meeting.mask >> source & 1) == 0) {
      Machine::Get().Fail(Fault::kExitedLane,
                          std::string(meeting.name) + ": lane " + std::to_string(lane) +
                              " reads from lane " + std::to_string(source) +
                              ", which is not in the mask " + std::to_string(meeting.mask),
                          0, meeting.where);
    }
    one.result = OperandOf<ShuffleOperand>(meeting, source).value;
  });
  static_cast<void>(warp);
  ++Machine::Get().counts().shuffles;
}

struct VoteOperand {
  uint64_t value;
  uint32_t result;
};

void FinishBallot(Warp& /*warp*/, const Meeting& meeting) {
  uint32_t votes = 0;
  ForLanes(meeting.mask, [&](int lane) {
    if (OperandOf<VoteOperand>(meeting, lane).value != 0) votes |= 1u << lane;
  });
  ForLanes(meeting.mask, [&](int lane) { OperandOf<VoteOperand>(meeting, lane).result = votes; });
  ++Machine::Get().counts().votes;
}

void FinishMatch(Warp& /*warp*/, const Meeting& meeting) {
  ForLanes(meeting.mask, [&](int lane) {
    auto& one = OperandOf<VoteOperand>(meeting, lane);
    one.result = 0;
    ForLanes(meeting.mask, [&](int other) {
      if (OperandOf<VoteOperand>(meeting, other).value == one.value) one.result |= 1u << other;
    });
  });
  ++Machine::Get().counts().votes;
}

struct ReduceOperand {
  uint32_t value;
  uint32_t result;
  ReduceKind kind;
  bool is_signed;
};

uint32_t Combine(const ReduceOperand& one, uint32_t a, uint32_t b) {
  const bool less = one.is_signed ? static_cast<int32_t>(a) < static_cast<int32_t>(b) : a < b;
  switch (one.kind) {
    case ReduceKind::kAdd:
      return a + b;
    case ReduceKind::kMin:
      return less ? a : b;
    case ReduceKind::kMax:
      return less ? b : a;
    case ReduceKind::kAnd:
      return a & b;
    case ReduceKind::kOr:
      return a | b;
    case ReduceKind::kXor:
      return a ^ b;
  }
  return 0;
}

void FinishReduce(Warp& /*warp*/, const Meeting& meeting) {
  const int first = std::countr_zero(meeting.mask);
  uint32_t total = OperandOf<ReduceOperand>(meeting, first).value;
  ForLanes(meeting.mask & (meeting.mask - 1), [&](int lane) {
    const auto& one = OperandOf<ReduceOperand>(meeting, lane);
    total = Combine(one, total, one.value);
  });
  ForLanes(meeting.mask, [&](int lane) { OperandOf<ReduceOperand>(meeting, lane).result = total; });
  ++Machine::Get().counts().votes;
}

void FinishWarpBarrier(Warp& warp, const Meeting& meeting) {
  std::vector<Participant> participants;
  ForLanes(meeting.arrived, [&](int lane) {
    Thread& thread = *warp.lanes[static_cast<size_t>(lane)];
    participants.push_back({&thread.clock, thread.number});
  });
  const ClockRef joined = JoinParticipants(participants);
  for (const Participant& one : participants) {
    one.clock->known = joined;
    ++one.clock->epoch;
  }
  ++Machine::Get().counts().warp_barriers;
}

}  // namespace

Index ThreadIndex() { return Current().index; }
Index BlockIndex() { return Current().block->index; }
bool OnDevice() { return running.thread != nullptr; }

int BlockBarrier(int value, const char* name, Where where) {
  Thread& thread = Current();
  Machine::Get().ArriveAtBarrier(0, BlockThreads(), value, true, name, where);
  return thread.result;
}

void NamedBarrierSync(int barrier, int threads, Where where) {
  CheckNamed(barrier, threads, "barrier.sync", where);
  Machine::Get().ArriveAtBarrier(barrier, threads == 0 ? BlockThreads() : threads, 0, true,
                                 "barrier.sync", where);
}

void NamedBarrierArrive(int barrier, int threads, Where where) {
  CheckNamed(barrier, threads, "barrier.arrive", where);
  Machine::Get().ArriveAtBarrier(barrier, threads == 0 ? BlockThreads() : threads, 0, false,
                                 "barrier.arrive", where);
}

void WarpBarrier(uint32_t mask, Where where) {
  Machine::Get().Meet(WarpOp::kBarrier, mask, nullptr, FinishWarpBarrier, "__syncwarp", where);
}

uint64_t Shuffle(ShuffleKind kind, uint32_t mask, uint64_t value, int argument, int width,
                 const char* name, Where where) {
  if (width < 1 || width > kWarpLanes || !std::has_single_bit(static_cast<unsigned>(width))) {
    Machine::Get().Fail(Fault::kBadArgument,
                        std::string(name) + " with a width of " + std::to_string(width) +
                            "; a power of two up to 32 is right",
                        0, where);
  }
  ShuffleOperand operand{value, 0, argument, width, kind};
  Machine::Get().Meet(WarpOp::kShuffle, mask, &operand, FinishShuffle, name, where);
  return operand.result;
}

uint32_t Ballot(uint32_t mask, bool predicate, const char* name, Where where) {
  VoteOperand operand{predicate ? 1u : 0u, 0};
  Machine::Get().Meet(WarpOp::kVote, mask, &operand, FinishBallot, name, where);
  return operand.result;
}

uint32_t MatchAny(uint32_t mask, uint64_t value, Where where) {
  VoteOperand operand{value, 0};
  Machine::Get().Meet(WarpOp::kMatch, mask, &operand, FinishMatch, "__match_any_sync", where);
  return operand.result;
}

uint32_t Reduce(ReduceKind kind, uint32_t mask, uint32_t value, bool is_signed, const char* name,
                Where where) {
  ReduceOperand operand{value, 0, kind, is_signed};
  Machine::Get().Meet(WarpOp::kReduce, mask, &operand, FinishReduce, name, where);
  return operand.result;
}

// Lanes that have not ended: which of them are together cannot be told, here or on a GPU.
uint32_t ActiveMask() {
  const Warp& warp = *Current().warp;
  return warp.exists & ~warp.exited;
}

void ThreadFence() {
  Machine& machine = Machine::Get();
  Thread& thread = machine.current();
  Fence(thread.clock, thread.block->number, thread.number);
  ++machine.counts().fences;
  machine.MaybeYield();
}

void BeginAtomic(void* address, size_t bytes, const void* site) {
  Machine& machine = Machine::Get();
  machine.Access(reinterpret_cast<uintptr_t>(address), bytes, Touch::kAtomicWrite, true,
                 Program::SiteOf(site));
  ++machine.counts().atomics;
}

void EndAtomic(void* address, bool changed) {
  Machine& machine = Machine::Get();
  if (changed) machine.Progress();
  machine.MeetAt(reinterpret_cast<uintptr_t>(address), true, true);
}

}  // namespace quern::simt
