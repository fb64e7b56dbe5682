#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "runtime/sampling/sampling_params.h"

namespace quern {

// logit_bias and the three penalties of one sequence. Keeps count of the sequence's tokens as they
// come, so that a step costs one pass over the distinct tokens that it touches, never over the
// vocabulary or the context. In vLLM's order: bias; then repetition_penalty, over prompt and
// generated tokens, by Hugging Face's formula (RepetitionPenaltyLogitsProcessor); then frequency
// and presence penalty, over generated tokens, by OpenAI's. Not thread-safe.
class LogitAdjuster {
 public:
  // A logit before it was changed.
  struct Original {
    int32_t token;
    float logit;
  };

  // Whether `params` ask for anything that is done here.
  static bool Needed(const SamplingParams& params);

  // `params` valid; all tokens, also those of Count, are ids of the vocabulary.
  LogitAdjuster(const SamplingParams& params, std::span<const int32_t> prompt);

  // `token` was generated.
  void Count(int32_t token);

  // Changes `logits` [vocab_size] in place and appends what stood there to `originals`, each token
  // once. Logits that are not finite stay as they are, for the sampler to report.
  void Apply(std::span<float> logits, std::vector<Original>& originals) const;

 private:
  struct Touched {
    int32_t token;
    float bias = 0;
    int32_t generated = 0;  // times
    bool seen = false;      // in the prompt or generated
  };

  Touched& Entry(int32_t token);

  const float frequency_penalty_;
  const float presence_penalty_;
  const float repetition_penalty_;
  std::vector<Touched> touched_;
  std::unordered_map<int32_t, size_t> index_;  // token -> its place in touched_
};

}  // namespace quern
