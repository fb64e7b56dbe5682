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
  // A prompt token of a sequence with every_row counts as so many, here and to its tenant; at least
  // 1.
  int32_t every_row_cost = 1;
  int32_t layers = 1;  // of the model
  // Where a sequence decodes in the same step, a prompt's chunk has so many tokens, if that is more
  // than max_prefill_tokens allow, and goes through `step_layers` of the layers only; the following
  // steps take it through the others. At most max_batch_tokens - max_sequences, so that decodes
  // leave it room. 0: no chunk does.
  int32_t layered_tokens = 0;
  int32_t step_layers = 0;  // at least 1 with layered_tokens
  int32_t load_tokens = 0;  // what loading its context costs, in tokens of a chunk
};

inline constexpr int32_t kAllLayers = std::numeric_limits<int32_t>::max();

// One sequence's part of a step.
struct ScheduledSequence {
  Sequence* sequence;
  int32_t num_tokens;  // of its pending tokens, from cached_tokens on; its block table has room for
                       // them
  bool samples;  // nothing is pending after this step: its last row's logits give the next token
  // The layers that its tokens go through. Of one sequence of a step at most they are not all.
  int32_t first_layer = 0;
  int32_t end_layer = kAllLayers;

  bool completes() const { return end_layer == kAllLayers; }
  bool is_layered() const { return first_layer > 0 || !completes(); }
};

struct SchedulerOutput {
  std::vector<ScheduledSequence>
      sequences;  // decodes first, then prefill chunks, each as it was served; a layered one last
  int32_t num_decodes = 0;  // of `sequences`
  int32_t num_tokens = 0;   // over all
  // Sequences sent back to their queues: because the KV cache was full, and so that a tenant with
  // less than its fair share gets a place.
  int32_t num_preempted_kv_full = 0;
  int32_t num_preempted_fairness = 0;
  int32_t num_preempted() const { return num_preempted_kv_full + num_preempted_fairness; }
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
// as the decodes can bear beside them, goes to prefill chunks and to sequences admitted from the
// queues, of the tenant with the lowest virtual counter first (FairQueue), each tenant's own first
// come first served. A token that is prefilled counts 1, one that is generated 2; what the prefix
// cache gave, and what is computed again after a preemption, costs nothing.
//
// Layered prefill (Lee et al. 2025): a small chunk costs nearly as much as a large one, since each
// loads the whole context before it (and, of a mixture, its experts). Where decodes can bear small
// ones alone, a larger one goes through a few layers in each step instead, and what comes out is
// held until the next. One sequence at a time: others have ordinary chunks meanwhile.
//
// When a sequence finds no block free, one that was admitted later loses its blocks and is
// recomputed later: the latest of the tenant with the largest share (Holdings). If that is the
// sequence in need, it gives way when it decodes, and waits when it prefills. The one that was
// admitted first never gives way.
//
// A sequence that has never run, of a tenant that has no more than its fair share, does not wait
// until an over-served tenant leaves it a place or blocks: it takes them (Holdings::MakeRoom). Each
// sequence does so once at most, and who was preempted never again, so no two take turns at
// evicting each other. If that is not enough, no newcomer overtakes it. One of a tenant that would
// hold more than its fair share of the blocks is overtaken by others that would not, and that fit.
//
// With one tenant and one class all this is: first come, first served; the latest gives way.
//
// A sequence is admitted with the longest cached prefix of its tokens in its block table, in whole
// blocks and short of its last token, which must run to give logits. Blocks so shared are full and
// never written again.
//
// Never empty-handed: with a sequence in either queue the output holds at least one token, because
// the one admitted first can take every other's blocks and fits alone (SchedulerState::FitsAlone).
SchedulerOutput Schedule(SchedulerState& state, const SchedulerLimits& limits);

}  // namespace quern
