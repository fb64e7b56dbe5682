#pragma once

#include <cstdint>
#include <string>

namespace quern::bench {

enum class Endpoint { kCompletions, kChat };

// What every request of a run asks for.
struct BodyOptions {
  Endpoint endpoint = Endpoint::kCompletions;
  std::string model;
  bool ignore_eos = true;
  double temperature = 0;
};

// "/completions" or "/chat/completions".
const char* EndpointPath(Endpoint endpoint);

// The JSON that asks for a streamed answer with its usage.
std::string StreamBody(const BodyOptions& options, const std::string& prompt,
                       int32_t output_tokens);
// The same for an answer of one token in one piece, whose usage counts the prompt.
std::string ProbeBody(const BodyOptions& options, const std::string& prompt);
// For vLLM's /tokenize: the tokens of the prompt as the endpoint would make it.
std::string TokenizeBody(const BodyOptions& options, const std::string& prompt);

}  // namespace quern::bench
