#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/simt/machine.h"

// Barriers of blocks and what lanes do together.
namespace quern::simt {
namespace {

std::string Hex(uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%08x", mask);
  return text;
}

std::string At(Where where) { return SourcePath(where.file) + ":" + std::to_string(where.line); }

}  // namespace

void Machine::ArriveAtBarrier(int id, int expected, int value, bool wait, const char* name,
                              Where where) {
  Thread& thread = *running.thread;
  Block& block = *thread.block;
  Barrier& barrier = block.barriers[static_cast<size_t>(id)];
  const bool plain = name[0] == '_';  // __syncthreads
  if (barrier.expected == 0) {
    barrier.expected = expected;
    barrier.name = name;
    barrier.where = where;
  } else if (barrier.expected != expected) {
    Fail(Fault::kDivergentBarrier,
         std::string(name) + " waits for " + std::to_string(expected) + " threads, but " +
             barrier.name + " at " + At(barrier.where) + ", the same barrier, for " +
             std::to_string(barrier.expected),
         0, where);
  } else if (plain && (barrier.where.line != where.line ||
                       std::strcmp(barrier.where.file, where.file) != 0)) {
    Fail(Fault::kDivergentBarrier,
         std::string(name) + " while other threads of the block wait in " + barrier.name + " at " +
             At(barrier.where),
         0, where);
  }
  barrier.clocks.push_back(thread.clock);
  barrier.numbers.push_back(thread.number);
  ++thread.clock.epoch;
  ++barrier.arrived;
  barrier.sum += value;
  if (barrier.arrived < barrier.expected) {
    if (!wait) return;
    barrier.waiting.push_back(&thread);
    Wait(name, where);
    return;
  }
  std::vector<Participant> participants;
  for (size_t i = 0; i < barrier.clocks.size(); ++i) {
    participants.push_back({&barrier.clocks[i], barrier.numbers[i]});
  }
  const ClockRef joined = JoinParticipants(participants);
  if (wait) barrier.waiting.push_back(&thread);
  for (Thread* one : barrier.waiting) {
    // Their warps' lanes have come together; those of warps that are elsewhere may not have.
    if (counts_traffic()) one->warp->traffic.Flush(counts(), options_.watched);
    one->clock.known = joined;
    one->result = barrier.sum;
    if (one != &thread) Wake(*one);
  }
  barrier = {};
  ++counts().block_barriers;
}

void Machine::Meet(WarpOp op, uint32_t mask, void* operand,
                   void (*finish)(Warp& warp, const Meeting& meeting), const char* name,
                   Where where) {
  Thread& thread = *running.thread;
  Warp& warp = *thread.warp;
  const uint32_t self = 1u << thread.lane;
  if ((mask & self) == 0) {
    Fail(Fault::kBadMask,
         std::string(name) + " with the mask " + Hex(mask) + ", in which lane " +
             std::to_string(thread.lane) + ", the caller, is not",
         0, where);
  }
  const uint32_t gone = mask & (warp.exited | ~warp.exists);
  if (gone != 0 && op != WarpOp::kBarrier) {
    const int lane = std::countr_zero(gone);
    const bool ended = (warp.exited >> lane & 1) != 0;
    Fail(Fault::kExitedLane,
         std::string(name) + " with the mask " + Hex(mask) + ", but lane " + std::to_string(lane) +
             (ended ? " has ended" : " does not exist"),
         0, where);
  }
  auto meeting = std::find_if(warp.meetings.begin(), warp.meetings.end(),
                              [mask](const Meeting& one) { return one.mask == mask; });
  if (meeting == warp.meetings.end()) {
    warp.meetings.push_back({op, mask, 0, name, where, finish, {}});
    meeting = std::prev(warp.meetings.end());
  } else if (meeting->op != op || meeting->finish != finish) {
    Fail(Fault::kDivergentWarp,
         std::string(name) + " with the mask " + Hex(mask) + ", while other lanes of it wait in " +
             meeting->name + " at " + At(meeting->where),
         0, where);
  }
  meeting->arrived |= self;
  meeting->operands[static_cast<size_t>(thread.lane)] = operand;
  thread.waits_for = name;
  FinishMeetings(warp);
  if (thread.waits_for != nullptr) {
    Wait(name, where);
    return;
  }
  // It came last and goes on at once.
  warp.ready &= ~self;
  if (warp.ready == 0) thread.block->ready_warps &= ~(1u << warp.number);
}

void Machine::MeetAt(uintptr_t address, bool reads, bool writes) {
  Thread& thread = current();
  // Shared addresses are the same for all blocks, but each has its own memory.
  if (IsShared(address)) address ^= uintptr_t{thread.block->number + 1} << 48;
  BlocksRef& published = published_[address];
  if (reads) thread.clock.seen = Join(thread.clock.seen, published);
  // Who reads and writes at once hands on what was published before; a mere write replaces it.
  if (writes) published = reads ? Join(published, thread.clock.released) : thread.clock.released;
}

void Machine::FinishMeetings(Warp& warp) {
  for (size_t i = 0; i < warp.meetings.size(); ++i) {
    const Meeting meeting = warp.meetings[i];
    const uint32_t present = meeting.mask & warp.exists & ~warp.exited;
    if ((present & ~meeting.arrived) != 0) continue;
    warp.meetings.erase(warp.meetings.begin() + static_cast<std::ptrdiff_t>(i));
    --i;
    if (meeting.finish != nullptr) meeting.finish(warp, meeting);
    for (uint32_t left = meeting.arrived; left != 0; left &= left - 1) {
      Wake(*warp.lanes[static_cast<size_t>(std::countr_zero(left))]);
    }
    if (counts_traffic() && meeting.arrived == (warp.exists & ~warp.exited)) {
      warp.traffic.Flush(counts(), options_.watched);
    }
  }
}

}  // namespace quern::simt
