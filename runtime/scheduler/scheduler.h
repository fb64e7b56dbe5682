#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "runtime/scheduler/scheduler_state.h"
#include "runtime/scheduler/sequence.h"

namespace quern {

struct SchedulerLimits {
  int32_t max_sequences = 32;  // running at once
  int32_t max_batch_tokens =
      512;  // tokens of one step; at least max_sequences, so that every decode has room
  // Of them, prompt tokens where a sequence decodes in the same step (PrefillBudget); at least 1.
  int32_t max_prefill_tokens = std::numeric_limits<int32_t>::max();
};

// One sequence's part of a step.
struct ScheduledSequence {
  Sequence* sequence;
  int32_t num_tokens;  // of its pending tokens, from cached_tokens on; its block table has room for
                       // them
  bool samples;  // nothing is pending after this step: its last row's logits give the next token
};

struct SchedulerOutput {
  std::vector<ScheduledSequence>
      sequences;                 // decodes first, then prefill chunks; each in order of arrival
  int32_t num_decodes = 0;       // of `sequences`
  int32_t num_tokens = 0;        // over all
  int32_t num_preempted = 0;     // sequences sent back to the waiting queue
  int64_t preempted_tokens = 0;  // of sequences admitted again: tokens that were cached for them,
                                 // are no more, and must be computed again
  int64_t prefix_queries = 0;    // prompt tokens of sequences admitted for the first time that were
                                 // looked up in the prefix cache
  int64_t prefix_hits = 0;       // those of them that were found: not computed
};

// Decides one step and takes the blocks that it needs. Pure in the house's sense: it reads and
// moves only `state`, and the same state gives the same step.
//
// Continuous batching (Orca, Yu et al. 2022) with chunked prefill (Sarathi-Serve, Agrawal et al.
// 2024): every decoding sequence runs its one token; what is left of the token budget, or as much
// as the decodes can bear beside them, goes to prefill chunks, first come first served, and to
// sequences admitted from the waiting queue. When a sequence finds no block free, the latest
// arrival loses its blocks and is recomputed later (itself, if it is the latest and decodes; a
// prefilling one waits instead, as nothing later than it can be in its way).
//
// A sequence is admitted with the longest cached prefix of its tokens in its block table, in whole
// blocks and short of its last token, which must run to give logits. Blocks so shared are full and
// never written again.
//
// Never empty-handed: with a sequence in either queue the output holds at least one token, because
// the earliest arrival can take every other's blocks and fits alone (SchedulerState::FitsAlone).
SchedulerOutput Schedule(SchedulerState& state, const SchedulerLimits& limits);

}  // namespace quern
