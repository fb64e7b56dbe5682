#include "runtime/serve_bench_sampling.h"

#include <CLI/CLI.hpp>

#include "runtime/command_line.h"

namespace quern {

void BenchSampling::ApplyTo(GenerationRequest& request, const std::vector<TokenId>& words,
                            std::mt19937& random) const {
  request.sampling = params;
  request.sampling.seed = random();
  for (int32_t i = 0; i < biased_tokens; ++i) {
    // Too little to change much of what is generated, and as much work as any bias.
    request.sampling.logit_bias.push_back({words[random() % words.size()], 0.01f});
  }
  request.top_logprobs = top_logprobs;
}

void AddSamplingOptions(CLI::App& app, BenchSampling& sampling) {
  SamplingParams& params = sampling.params;
  app.add_option("--temperature", params.temperature,
                 "Sampling temperature; 0: the likeliest token [0]")
      ->check(NumberIn(0.0, 2.0))
      ->type_name("X");
  app.add_option("--top-k", params.top_k, "Samples from so many tokens; 0: from all [0]")
      ->check(WholeNumber(0, 1 << 20))
      ->type_name("N");
  app.add_option("--top-p", params.top_p, "Samples from the likeliest tokens up to this mass [1]")
      ->check(NumberIn(0.001, 1.0))
      ->type_name("X");
  app.add_option("--min-p", params.min_p,
                 "Samples from tokens that are at least so likely, as a part of the likeliest [0]")
      ->check(NumberIn(0.0, 0.999))
      ->type_name("X");
  app.add_option("--typical-p", params.typical_p,
                 "Samples from the tokens of the most expected surprise up to this mass [1]")
      ->check(NumberIn(0.001, 1.0))
      ->type_name("X");
  app.add_option("--repetition-penalty", params.repetition_penalty,
                 "On tokens that were in the prompt or generated [1]")
      ->check(NumberIn(0.01, 10.0))
      ->type_name("X");
  app.add_option("--frequency-penalty", params.frequency_penalty,
                 "On generated tokens, for each time [0]")
      ->check(NumberIn(-2.0, 2.0))
      ->type_name("X");
  app.add_option("--presence-penalty", params.presence_penalty, "On generated tokens, once [0]")
      ->check(NumberIn(-2.0, 2.0))
      ->type_name("X");
  app.add_option("--biased-tokens", sampling.biased_tokens,
                 "So many random tokens get a small logit_bias [0]")
      ->check(WholeNumber(0, static_cast<int>(kMaxLogitBiases)))
      ->type_name("N");
  app.add_option("--logprobs", sampling.top_logprobs,
                 "Log-probabilities with every token, and of so many of the likeliest [none]")
      ->check(WholeNumber(0, kMaxTopLogprobs))
      ->type_name("N");
}

void CheckSamplingOptions(const BenchSampling& sampling) {
  const SamplingParams& params = sampling.params;
  const char* cut = params.top_k > 0       ? "--top-k"
                    : params.top_p < 1     ? "--top-p"
                    : params.min_p > 0     ? "--min-p"
                    : params.typical_p < 1 ? "--typical-p"
                                           : nullptr;
  if (params.temperature == 0 && cut != nullptr) {
    throw CLI::ValidationError(cut,
                               "cuts nothing where the likeliest token is taken; give "
                               "--temperature above 0 with it");
  }
}

nlohmann::json ToJson(const BenchSampling& sampling) {
  const SamplingParams& params = sampling.params;
  nlohmann::json out = {{"temperature", params.temperature},
                        {"top_k", params.top_k},
                        {"top_p", params.top_p},
                        {"min_p", params.min_p},
                        {"typical_p", params.typical_p},
                        {"repetition_penalty", params.repetition_penalty},
                        {"frequency_penalty", params.frequency_penalty},
                        {"presence_penalty", params.presence_penalty},
                        {"biased_tokens", sampling.biased_tokens},
                        {"top_logprobs", nullptr}};
  if (sampling.top_logprobs) out["top_logprobs"] = *sampling.top_logprobs;
  return out;
}

}  // namespace quern
