#include "runtime/server/foreign_names.h"

#include <string_view>
#include <utility>

#include "runtime/base/near_name.h"

namespace quern::server {
namespace {

// Without '_' and in lower case, and what it is called here; where an API has only one of several
// names, that one is found. From the references of llama.cpp's server, Hugging Face's TGI and
// transformers, Ollama, Anthropic's, Cohere's and Gemini's.
constexpr std::pair<std::string_view, std::string_view> kForeignNames[] = {
    {"maxtoken", "max_output_tokens"},
    {"maxnewtokens", "max_tokens"},
    {"maxnewtokens", "max_output_tokens"},
    {"maxcompletiontokens", "max_tokens"},
    {"maxoutputtokens", "max_tokens"},
    {"maxtokenstosample", "max_tokens"},
    {"maxlength", "max_tokens"},
    {"maxlength", "max_output_tokens"},
    {"npredict", "max_tokens"},
    {"npredict", "max_output_tokens"},
    {"numpredict", "max_tokens"},
    {"numpredict", "max_output_tokens"},
    {"minnewtokens", "min_tokens"},
    {"temp", "temperature"},
    {"typical", "typical_p"},
    {"typp", "typical_p"},
    {"repeatpenalty", "repetition_penalty"},
    {"reppen", "repetition_penalty"},
    {"stopsequences", "stop"},
    {"stopsequence", "stop"},
    {"stopstrings", "stop"},
    {"endsequences", "stop"},
    {"antiprompt", "stop"},
    {"randomseed", "seed"},
    {"numreturnsequences", "n"},
    {"candidatecount", "n"},
    {"numgenerations", "n"},
    {"nprobs", "top_logprobs"},
    {"nprobs", "logprobs"},
    {"toplogprobs", "logprobs"},
    {"topntokens", "top_logprobs"},
    {"topntokens", "logprobs"},
    {"returnlogprobs", "logprobs"},
    {"includelogprobs", "logprobs"},
    {"returnfulltext", "echo"},
    {"ignoreeostoken", "ignore_eos"},
    {"jsonschema", "response_format"},
    {"jsonschema", "text"},
    {"grammar", "structured_outputs"},
    {"regex", "structured_outputs"},
    {"inputs", "prompt"},
    {"text", "prompt"},
    {"text", "input"},
    {"content", "prompt"},
    {"system", "instructions"},
    {"systemprompt", "instructions"},
};

std::string Bare(std::string_view name) {
  std::string bare;
  for (const char c : name) {
    if (c == '_' || c == '-') continue;
    bare += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return bare;
}

}  // namespace

const std::string* MeantName(const std::string& name, const std::set<std::string>& candidates) {
  const std::string bare = Bare(std::string_view(name).substr(0, 80));
  for (const auto& [foreign, ours] : kForeignNames) {
    if (bare != foreign) continue;
    const auto found = candidates.find(std::string(ours));
    if (found != candidates.end()) return &*found;
  }
  return NearestName(name, candidates);
}

}  // namespace quern::server
