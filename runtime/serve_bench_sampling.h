#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <vector>

#include "runtime/engine/engine.h"

namespace CLI {
class App;
}

// What `quern-serve bench` does with the logits: greedy, unless told otherwise.
namespace quern {

struct BenchSampling {
  SamplingParams params{.temperature = 0};
  int32_t biased_tokens = 0;  // tokens with a logit_bias, in each request
  std::optional<int32_t> top_logprobs;

  // Into `request`, whose biased tokens are some of `words`.
  void ApplyTo(GenerationRequest& request, const std::vector<TokenId>& words,
               std::mt19937& random) const;
};

void AddSamplingOptions(CLI::App& app, BenchSampling& sampling);

// Throws CLI::ValidationError where options contradict each other.
void CheckSamplingOptions(const BenchSampling& sampling);

// By the names of the API.
nlohmann::json ToJson(const BenchSampling& sampling);

}  // namespace quern
