#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "quern/kernels/sample_tokens.h"

struct CUstream_st;  // what cudaStream_t points to: the header needs no CUDA

namespace quern::kernels {

inline constexpr int64_t kMaxDrafts = 32;

// Speculative decoding's decision about drafted tokens, on an NVIDIA GPU of compute capability 8.0
// or later. All pointers are to the current device's memory; it depends on each sequence alone.
//
// p is the distribution that SampleTokens would draw from, cuts included, at the sequence's
// position
// + i; u_d is the uniform for (seed, position + i) and draw number d.
//
// Without draft_logits the drafts came without chance (a prompt's n-grams, a greedy drafter): the
// target's own draws, those of SampleTokens, are taken as long as the drafts before them were the
// same. So a sequence gets the very tokens that it would get without drafts, and as many drafts are
// accepted as by the rule below.
//
// With draft_logits a draft x was drawn from q, which they and the sequence's parameters give (by
// SampleTokens, say, with draw 0): it is accepted if u_1 q(x) < p(x); else the token is drawn from
// max(0, p - q) by u_2. After the last draft the token is drawn from p by u_0 (Leviathan et al.
// 2023, "Fast inference from transformers via speculative decoding", algorithm 1): each token is
// distributed as p. Where p is greedy a draft is accepted if it is p's token.
struct VerifyDraftsArgs {
  const float* target_logits;   // [sequences, drafts + 1, vocab], 16-byte aligned
  const float* draft_logits;    // [sequences, drafts, vocab], 16-byte aligned, or null
  int64_t logits_stride;        // elements from row to row of both: a multiple of 4, at least vocab
  int64_t vocab;                // from 1 to kMaxSampledVocab
  int64_t sequences;            // from 0 (nothing is done); sequences * (drafts + 1) to 65535
  int64_t drafts;               // from 1 to kMaxDrafts
  const int32_t* draft_tokens;  // [sequences, drafts]; an id outside the vocabulary: no more drafts
  const SampleRow* params;      // [sequences], `position`: the first draft's
  bool any_draw;                // of params, as SampleTokensArgs has them
  bool any_top_k;
  bool any_top_p;
  int32_t* accepted;  // [sequences]: how many drafts
  int32_t* tokens;    // [sequences, drafts + 1]: these drafts, one token more, then -1. That one is
                      // -1 where p has no token to pick (SampleTokensArgs::ids)
  void* workspace;    // VerifyWorkspaceBytes, 16-byte aligned; it need not be cleared
  size_t workspace_size;
};

size_t VerifyWorkspaceBytes(int64_t sequences, int64_t drafts, int64_t vocab);

// Starts it on `stream` of the current device and returns "", or what is wrong with the arguments;
// then nothing is started. May be called by several threads, with a workspace each, and captured
// into a graph.
[[nodiscard]] std::string VerifyDrafts(const VerifyDraftsArgs& args, CUstream_st* stream);

}  // namespace quern::kernels
