#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

// How one row's token is picked; the names are OpenAI's and vLLM's. Numbers outside their ranges:
// NaN and a min_p below 0 cut nothing, a top_p of 0 or less keeps the likeliest token alone, a
// min_p of 1 or more those that are as likely; a temperature of NaN is greedy.
struct SampleRow {
  float temperature;  // below 1e-5: greedy
  float top_p;        // (0, 1]
  float min_p;        // [0, 1)
  int32_t top_k;      // below 1: all; 1: greedy
  uint64_t seed;
  uint64_t position;  // the token's place in its sequence
};

inline constexpr int64_t kMaxSampledVocab = int64_t{1} << 20;

// Picks a token of each row of logits on an NVIDIA GPU of compute capability 8.0 or later: greedy,
// the lowest id among equals, or drawn, in vLLM's order: temperature, min_p, top_k, top_p (of what
// the others left). All pointers are to the current device's memory.
//
// A token's weight is exp(-x) with x = (greatest logit - logit) / temperature in float32, as a
// multiple of 2^-44, so that sums of weights are whole numbers and the result depends on the row
// alone: neither on timing nor on the other rows. Tokens rank by x as a multiple of 2^-26, and by
// id among equals (the lower first). The draw is the first id at which the running sum of weights,
// by id, exceeds u times their sum, with u the uniform of the CPU's sampler for (seed, position):
// Philox4x32-10 (Salmon et al. 2011). The CPU's sampler takes other draws where top_p alone cuts.
struct SampleTokensArgs {
  const float* logits;      // [rows, vocab], 16-byte aligned; -infinity: never drawn
  int64_t logits_stride;    // elements from row to row: a multiple of 4, at least vocab
  int64_t vocab;            // from 1 to kMaxSampledVocab
  int64_t rows;             // from 0 (nothing is done) to 65535
  const SampleRow* params;  // [rows], 8-byte aligned
  // Whether any row is not greedy, has a top_k above 1, or a top_p below 1. What is said to be
  // needed by no row is not launched, and done for none: all are greedy, or their top_k or top_p is
  // ignored.
  bool any_draw;
  bool any_top_k;
  bool any_top_p;
  int32_t* ids;     // [rows]; -1 where a logit is NaN or +infinity, or all are -infinity
  void* workspace;  // SampleWorkspaceBytes, 16-byte aligned; it need not be cleared
  size_t workspace_size;
  int thread_blocks = 0;  // per row, for tests; 0: as many as are best
};

size_t SampleWorkspaceBytes(int64_t rows, int64_t vocab);

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. May be called by several threads, with a workspace each, and captured
// into a graph.
//
// No sort: histograms of 2048 + 1024 + 1024 bins over x find the last token that top_k or top_p
// keeps, digit by digit (radix select), of its count or its weight, each by many thread blocks;
// then sums over tiles of 2048 tokens lead to the drawn one. Two kernels for greedy rows, four for
// draws, two more for each of top_k and top_p.
[[nodiscard]] std::string SampleTokens(const SampleTokensArgs& args, CUstream_st* stream);

namespace ref {
// A row's distribution in float64: the weight of each token, exp(-x) or 0 where it is cut or cannot
// be drawn; where the row is greedy 1 for its token. Ranks are by logit, and by id among equals.
// Returns the sum of the weights that are so close to top_p's bound, by 1e-5 of all, that roundings
// may decide about them; -1 where no token can be picked.
double SampleWeights(const float* logits, int64_t vocab, const SampleRow& params, double* weights);
}  // namespace ref
}  // namespace quern::kernels
