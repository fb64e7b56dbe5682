#include "runtime/scheduler/scheduler_state.h"

#include <algorithm>
#include <cassert>
#include <map>
#include <utility>

#include "runtime/scheduler/scheduler.h"

namespace quern {
namespace {

Status CheckSequence(const Sequence& sequence, int32_t block_tokens, const WindowBlocks& window,
                     bool waiting) {
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
  if (window.present() &&
      sequence.blocks.first_window() != window.FirstSeen(sequence.cached_tokens / block_tokens)) {
    return MakeError(ErrorCode::kInternal, "sequence {} with {} tokens cached keeps blocks from {}",
                     sequence.arrival, sequence.cached_tokens, sequence.blocks.first_window());
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
  waiting.Enter(sequence);
}

void SchedulerState::Remove(Sequence* sequence) {
  if (sequence->account == nullptr) return;
  Release(*sequence);
  sequence->blocks.Clear(pool);
  sequence->cached_tokens = 0;
  if (!sequence->waits) running.erase(std::find(running.begin(), running.end(), sequence));
  waiting.Leave(sequence);
}

void SchedulerState::Preempt(Sequence* victim) {
  const auto it = std::find(running.begin(), running.end(), victim);
  assert(it != running.end());
  running.erase(it);
  Release(*victim);
  victim->lost_tokens = victim->cached_tokens;
  victim->blocks.Clear(pool);
  victim->cached_tokens = 0;
  waiting.Return(victim);
}

void SchedulerState::Commit(const SchedulerOutput& output) {
  for (const ScheduledSequence& scheduled : output.sequences) {
    Sequence& sequence = *scheduled.sequence;
    if (!scheduled.completes()) {
      assert(held == nullptr || held == &sequence);
      held = &sequence;
      sequence.held_tokens = scheduled.num_tokens;
      sequence.held_layers = scheduled.end_layer;
      sequence.paid_tokens =
          std::max(sequence.paid_tokens, sequence.cached_tokens + sequence.held_tokens);
      continue;
    }
    Release(sequence);
    sequence.cached_tokens += scheduled.num_tokens;
    sequence.paid_tokens = std::max(sequence.paid_tokens, sequence.cached_tokens);
    if (sequence.tokens != nullptr) {
      sequence.blocks.Publish(*sequence.tokens, sequence.cached_tokens, sequence.salt, block_tokens,
                              pool);
    }
    sequence.blocks.Slide(sequence.cached_tokens, sequence.prompt_tokens, block_tokens, pool);
  }
}

void SchedulerState::Release(Sequence& sequence) {
  if (held != &sequence) return;
  held = nullptr;
  sequence.held_tokens = sequence.held_layers = 0;
}

void SchedulerState::ForgetCached() {
  // A block that is handed out leaves the index.
  std::vector<BlockId> free;
  while (const auto block = pool.Allocate()) free.push_back(*block);
  for (const BlockId block : free) pool.Free(block);
}

Status SchedulerState::CheckIntegrity() const {
  std::vector<const BlockTable*> tables;
  std::map<const TenantAccount*, int32_t> counted;
  const auto check = [&](const Sequence* sequence, bool is_waiting) -> Status {
    if (sequence->account == nullptr || sequence->waits != is_waiting) {
      return MakeError(ErrorCode::kInternal, "sequence {} is in the wrong place",
                       sequence->arrival);
    }
    if ((sequence->held_tokens > 0) != (sequence == held) ||
        (sequence->held_layers > 0) != (sequence == held) || (sequence == held && is_waiting)) {
      return MakeError(ErrorCode::kInternal, "of sequence {} {} tokens are held in {} layers",
                       sequence->arrival, sequence->held_tokens, sequence->held_layers);
    }
    tables.push_back(&sequence->blocks);
    return CheckSequence(*sequence, block_tokens, pool.window(), is_waiting);
  };
  for (const Sequence* sequence : running) {
    QUERN_TRY(check(sequence, false));
    ++counted[sequence->account];
  }
  Status status;
  waiting.ForEach([&](const Sequence* sequence) {
    if (status.ok()) status = check(sequence, true);
  });
  QUERN_TRY(std::move(status));
  for (const auto& [account, places] : counted) {
    if (account->running == places) continue;
    return MakeError(ErrorCode::kInternal, "a tenant has {} sequences running, not {}", places,
                     account->running);
  }
  QUERN_TRY(waiting.CheckIntegrity());
  return CheckBlocks(pool, tables);
}

}  // namespace quern
