#include "runtime/scheduler/scheduler_state.h"

#include <algorithm>
#include <cassert>

#include "runtime/scheduler/scheduler.h"

namespace quern {
namespace {

Status CheckSequence(const Sequence& sequence, int32_t block_tokens, bool waiting) {
  if (sequence.pending_tokens() < 1 || sequence.cached_tokens < 0) {
    return MakeError(ErrorCode::kInternal, "sequence {} has {} tokens, of which {} are cached",
                     sequence.arrival, sequence.total_tokens, sequence.cached_tokens);
  }
  if (sequence.cached_tokens > sequence.blocks.size() * block_tokens) {
    return MakeError(ErrorCode::kInternal, "sequence {} has {} tokens cached in {} blocks of {}",
                     sequence.arrival, sequence.cached_tokens, sequence.blocks.size(),
                     block_tokens);
  }
  if (sequence.cached_tokens < sequence.blocks.num_published() * block_tokens) {
    return MakeError(ErrorCode::kInternal, "sequence {} shares {} blocks but has {} tokens cached",
                     sequence.arrival, sequence.blocks.num_published(), sequence.cached_tokens);
  }
  if (waiting && (sequence.blocks.size() != 0 || sequence.cached_tokens != 0)) {
    return MakeError(ErrorCode::kInternal, "sequence {} waits but holds {} blocks",
                     sequence.arrival, sequence.blocks.size());
  }
  return {};
}

}  // namespace

void SchedulerState::Add(Sequence* sequence) {
  assert(sequence->prompt_tokens >= 1 && sequence->total_tokens >= sequence->prompt_tokens);
  assert(FitsAlone(sequence->total_tokens));
  waiting.push_back(sequence);
}

void SchedulerState::Remove(Sequence* sequence) {
  sequence->blocks.Clear(pool);
  sequence->cached_tokens = 0;
  if (const auto it = std::find(running.begin(), running.end(), sequence); it != running.end()) {
    running.erase(it);
  } else if (const auto at = std::find(waiting.begin(), waiting.end(), sequence);
             at != waiting.end()) {
    waiting.erase(at);
  }
}

void SchedulerState::PreemptLatest() {
  assert(!running.empty());
  Sequence* victim = running.back();
  victim->lost_tokens = victim->cached_tokens;
  running.pop_back();
  victim->blocks.Clear(pool);
  victim->cached_tokens = 0;
  waiting.push_front(victim);
}

void SchedulerState::Commit(const SchedulerOutput& output) {
  for (const ScheduledSequence& scheduled : output.sequences) {
    Sequence& sequence = *scheduled.sequence;
    sequence.cached_tokens += scheduled.num_tokens;
    if (sequence.tokens == nullptr) continue;
    sequence.blocks.Publish(*sequence.tokens, sequence.cached_tokens, sequence.salt, block_tokens,
                            pool);
  }
}

Status SchedulerState::CheckIntegrity() const {
  std::vector<const BlockTable*> tables;
  const Sequence* previous = nullptr;
  const auto check = [&](const Sequence* sequence, bool is_waiting) -> Status {
    if (previous != nullptr && previous->arrival >= sequence->arrival) {
      return MakeError(ErrorCode::kInternal, "sequence {} stands behind sequence {}",
                       sequence->arrival, previous->arrival);
    }
    previous = sequence;
    tables.push_back(&sequence->blocks);
    return CheckSequence(*sequence, block_tokens, is_waiting);
  };
  for (const Sequence* sequence : running) QUERN_TRY(check(sequence, false));
  for (const Sequence* sequence : waiting) QUERN_TRY(check(sequence, true));
  return CheckBlocks(pool, tables);
}

}  // namespace quern
