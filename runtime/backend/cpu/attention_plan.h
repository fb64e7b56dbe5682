#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/backend/backend.h"

namespace quern {

// The heads that a layer's attention has, and how many share one of the cache.
struct AttentionHeads {
  int heads = 1;
  int kv_heads = 1;
  int head_dim = 1;
};

// Queries that share what they look back at: rows [row_begin, row_end) of a sequence, and in each
// the heads [head_begin, head_end) of one KV head.
struct AttentionQueries {
  int32_t sequence = 0;
  int32_t kv_head = 0;
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t head_begin = 0;
  int32_t head_end = 0;

  int count() const { return (row_end - row_begin) * (head_end - head_begin); }
};

// What one thread computes in one go.
struct AttentionTask {
  AttentionQueries queries;
  // Of kAttentionSegment tokens, where others compute the rest of the context.
  int32_t segment_begin = 0;
  int32_t segment_end = 0;
  int64_t part = -1;  // where its parts go, of AttentionPlan's floats; below 0: it sees all
  int64_t cost = 0;   // in tokens loaded or looked back at

  bool whole() const { return part < 0; }
};

// Queries whose contexts several tasks share: [segments][count()] parts that lie together.
struct AttentionSplit {
  AttentionQueries queries;
  int32_t segments = 0;
  int64_t part = 0;
};

struct AttentionPlan {
  std::vector<AttentionTask> tasks;    // to be taken in this order
  std::vector<AttentionSplit> splits;  // to be combined when all tasks are done
};

// Shares the attention of a step's sequences out to `threads`: rows go together, because what they
// look back at is then loaded once; contexts are cut where there would be too few tasks to keep all
// threads busy to the end (Flash-Decoding, Dao et al. 2023), as far as their parts fit into
// `part_floats`; and the longest tasks come first (LPT, Graham 1969). How it is shared out changes
// no bit of the result. Replaces what is in `plan`. Pure.
void PlanAttention(const AttentionHeads& heads, int window,
                   std::span<const ForwardBatch::Sequence> sequences, int threads,
                   int64_t part_floats, AttentionPlan* plan);

}  // namespace quern
