#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/sampling/candidates.h"
#include "runtime/sampling/logit_scan.h"

namespace quern {

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;  // natural logarithm
};

// Log-probabilities of a row of logits: of the model's own distribution, whatever temperature,
// penalties and cuts then make of it (vLLM's "raw_logprobs"). Two passes over the vocabulary with
// vector instructions, no sort. Keeps its buffers; not thread-safe.
class LogprobReader {
 public:
  explicit LogprobReader(ScanIsa isa = SelectScanIsa()) : scan_(isa) {}

  // Takes the measure of `logits` [vocab_size], at least one, which may change afterwards.
  // kInternal when one of them is not finite.
  Status Measure(std::span<const float> logits);
  // Of a token that had this logit. Between Measures as often as wanted.
  float Logprob(float logit) const;
  // The `count` likeliest, the likeliest first, the lower id first among equals; all, if there are
  // fewer. `logits` as they were when measured.
  std::vector<TokenLogprob> Top(std::span<const float> logits, size_t count);

 private:
  LogitScan scan_;
  Candidates candidates_;
  std::vector<float> chunk_max_;
  std::vector<float> chunk_sum_;
  float max_ = 0;
  double log_sum_ = 0;  // of exp(logit - max_)
};

}  // namespace quern
