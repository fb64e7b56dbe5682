#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/sampling/candidates.h"
#include "runtime/sampling/logit_scan.h"
#include "runtime/sampling/nearest_draw.h"
#include "runtime/sampling/sampling_params.h"

namespace quern {

// Picks next tokens. In vLLM's order: temperature, min_p, top_k, top_p (of what the others left),
// draw; typical_p (of what min_p and top_k left) comes before top_p, as in llama.cpp. The
// vocabulary is passed over a few times with vector instructions and never sorted; one with top_p
// or typical_p alone is not listed, either. Keeps its buffers from call to call; not thread-safe.
class Sampler {
 public:
  // Temperatures below this are greedy: the quotient by them would leave float's range.
  static constexpr float kGreedyBelow = 1e-5f;

  explicit Sampler(ScanIsa isa = SelectScanIsa()) : scan_(isa), nearest_(scan_) {}

  // The id of the next token. `logits` [vocab_size], at least one; `params` valid. The draw depends
  // on `seed` and on `position`, the token's place in its sequence, alone. Greedy takes the lowest
  // id among equals. kInternal, naming the first of them, when a logit is NaN or infinite.
  Result<int32_t> Sample(std::span<const float> logits, const SamplingParams& params, uint64_t seed,
                         uint64_t position);

 private:
  int32_t ArgMax(std::span<const float> logits, float max) const;
  // A draw from all tokens: finds the chunk, and the token in it, without a list of candidates.
  int32_t DrawFromAll(std::span<const float> logits, float max, float inverse_temperature,
                      double u);
  // Fills candidates_ with what top_k and min_p keep, not weighed yet.
  void CollectForTopKMinP(std::span<const float> logits, const SamplingParams& params, float max);
  // A draw where typical_p or top_p cuts, and neither top_k nor min_p does.
  int32_t DrawNearest(std::span<const float> logits, const SamplingParams& params, float max,
                      uint64_t seed, uint64_t position);

  LogitScan scan_;
  NearestDraw nearest_;
  Candidates candidates_;
  std::vector<float> chunk_max_;
  std::vector<float> chunk_sum_;
  std::vector<double> weight_through_;
};

}  // namespace quern
