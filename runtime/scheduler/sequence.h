#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/kv_cache/block_table.h"

namespace quern {

struct TenantAccount;

// A request as the scheduler sees it: how many tokens it has and how many of them are in the KV
// cache. The tokens themselves are the engine's.
struct Sequence {
  uint64_t arrival = 0;       // rank: the smaller, the earlier it came; unique
  int32_t prompt_tokens = 0;  // at least 1
  int32_t total_tokens = 0;   // prompt and generated tokens that are known
  int32_t cached_tokens = 0;  // of those, how many have K and V in `blocks`, of all layers
  // The tokens after them that have been through the first `held_layers` layers, but not through
  // the others: the backend holds what came out (SchedulerState::held).
  int32_t held_tokens = 0;
  int32_t held_layers = 0;
  BlockTable blocks;

  std::string tenant;    // "": the nameless one
  double weight = 1;     // of the tenant; more than 0
  int32_t priority = 0;  // class: a lower one is served before a higher one
  // The queue's, while the sequence is in the scheduler.
  TenantAccount* account = nullptr;
  bool waits = false;

  // Its total_tokens tokens, for the prefix cache; null: it takes no blocks of others and leaves
  // none. Belongs to the engine.
  const std::vector<int32_t>* tokens = nullptr;
  // The logits of all of its prompt's rows are wanted: it takes no blocks of others.
  bool every_row = false;
  std::string salt;               // only sequences with the same one share blocks
  bool admitted = false;          // ran before, if only to be preempted
  int32_t lost_tokens = 0;        // that it had cached when it was last preempted
  int32_t recomputed_tokens = 0;  // of those, that the prefix cache did not have when it came back
  int32_t paid_tokens = 0;        // its first tokens, that its tenant was charged for
  int32_t hit_tokens = 0;  // of its prompt, those that were cached when it was first admitted

  // Tokens that must run before the next one can be sampled; at least 1 while the sequence lives.
  int32_t pending_tokens() const { return total_tokens - cached_tokens; }
  // Runs one token a step. The last token of a prefill counts too: it costs the same.
  bool decoding() const { return cached_tokens > 0 && pending_tokens() == 1; }
};

}  // namespace quern
