#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include "quern/kernels/attention.h"
#include "quern/kernels/head_screen.h"

namespace quern {

// One step of the engine, as a backend sees it: the new tokens of every sequence that takes part,
// back to back. A plain view: the engine owns the arrays for the duration of the call.
struct ForwardBatch {
  struct Sequence {
    int32_t first_row;       // index of its first new token in `tokens`
    int32_t num_rows;        // new tokens in this step: 1 when decoding, a chunk when prefilling
    int32_t context_tokens;  // tokens in its KV cache after this step (earlier ones + num_rows)
    // Blocks of its KV cache in order: token i lives in blocks[i / block_tokens], slot i %
    // block_tokens.
    std::span<const int32_t> blocks;
    // The same for the layers that see only their last tokens, where KvLayout::window_blocks is not
    // 0; -1 where no row of this step sees any token of the block.
    std::span<const int32_t> window_blocks = {};
  };

  std::span<const int32_t> tokens;     // [rows] token ids
  std::span<const int32_t> positions;  // [rows] position of each in its sequence, from 0
  std::span<const Sequence> sequences;
  // Rows whose logits are wanted (last row of a sequence that samples; all rows for scoring),
  // ascending.
  std::span<const int32_t> logit_rows;
  // The layers that the last sequence goes through; the others go through all. A prompt's chunk may
  // be taken through a model in several steps (layered prefill): what comes out of it at the last
  // layer is held for the batch that goes on from there, and no other chunk is held meanwhile. Such
  // a batch has the same tokens in it and no logits of theirs before the last layers.
  int32_t first_layer = 0;
  int32_t end_layer = std::numeric_limits<int32_t>::max();  // beyond the last layer: all

  // Of each logit row, how many of its greatest logits are wanted: a backend may give
  // kNotAmongGreatest for those that are not among them; 0: all are. Empty: all of all rows.
  std::span<const int32_t> logit_ranks = {};

  bool last_waits() const { return first_layer > 0; }
};

// Finite, and less than every logit.
using kernels::kNotAmongGreatest;

// What the KV cache stores.
using kernels::KvDtype;

// Size of the paged KV cache. Fixed when it is allocated.
struct KvLayout {
  int32_t block_tokens = 16;
  int32_t num_blocks = 0;
  // Of the layers that see only their last tokens (KvShape::windows), which have blocks of their
  // own then. 0: they keep all tokens, in the same blocks as the other layers.
  int32_t window_blocks = 0;
};

}  // namespace quern
