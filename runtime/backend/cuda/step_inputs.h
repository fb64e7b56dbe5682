#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/backend/forward_batch.h"

// What a step's kernels read of its batch, as one block of bytes that is copied to the device at
// once. Pure: no CUDA.
namespace quern {

// How large a step is for the device: a step of decoding alone is filled up, so that few sizes need
// be recorded.
struct StepSize {
  int32_t rows = 0;
  int32_t sequences = 0;
  int32_t context_tokens = 0;  // of the longest
  bool padded = false;         // rows and sequences that do nothing follow the batch's

  bool operator==(const StepSize&) const = default;
};

// Rows or sequences, and tokens of the longest context, of a step that is filled up.
int32_t FilledUp(int32_t rows);
int32_t FilledUpContext(int32_t tokens);

// `most_rows`: steps of more are not filled up.
StepSize SizeOf(const ForwardBatch& batch, int32_t most_rows);

// What the batch's blocks are held to.
struct StepKv {
  int32_t block_tokens = 16;
  int groups = 1;          // 2 where layers with windows have blocks of their own
  int32_t blocks[2] = {};  // of each group
  int32_t window = 0;      // the longest of the second group's
};

// Where each array is in the block, in bytes; all 16-byte aligned. Tables are the last.
struct StepLayout {
  StepLayout(const StepSize& size, const StepKv& kv);

  int32_t table_stride;   // blocks of a sequence
  size_t tokens;          // int32 [rows]
  size_t positions;       // int32 [rows]
  size_t query_begins;    // int32 [sequences + 1]
  size_t contexts;        // int32 [sequences]
  size_t places[2] = {};  // int64 [rows]: block * block_tokens + slot, -1: none; of each group
  size_t tables[2] = {};  // int32 [sequences, table_stride]
  size_t bytes;
};

// A part of the block that is copied: `rows` of `width` bytes, `pitch` from one to the next.
struct StepCopy {
  size_t offset = 0;
  size_t width = 0;
  size_t rows = 1;
  size_t pitch = 0;
};

// The block of `batch`, at `to`, layout.bytes long. Returns the parts that were written and that
// kernels read: where few sequences are much longer than the others, these are little of the
// tables, whose rows all have the longest one's room. Stops the process where the batch lacks a
// block that will be read or written, or names one that is not there.
std::vector<StepCopy> WriteStepInputs(const ForwardBatch& batch, const StepSize& size,
                                      const StepLayout& layout, const StepKv& kv, std::byte* to);

// Sequences one after the other whose attention is one call.
struct AttentionRun {
  int32_t first = 0;  // sequence
  int32_t count = 0;
  int32_t most_queries = 0;
  int32_t longest_context = 0;
  bool decode = false;  // few queries each
};

// Of all sequences, in their order. A sequence of up to four new tokens is decoding.
std::vector<AttentionRun> AttentionRuns(std::span<const ForwardBatch::Sequence> sequences);

}  // namespace quern
