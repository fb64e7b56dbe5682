#include "runtime/server/sampling_fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>

#include "runtime/tokenizer/utf8.h"

namespace quern::server {
using nlohmann::json;

namespace {

// Of `metadata`, as OpenAI.
constexpr size_t kMaxMetadata = 16;
constexpr size_t kMaxMetadataKeyLength = 64;
constexpr size_t kMaxMetadataValueLength = 512;

std::vector<std::string> ParseStop(Fields& fields) {
  const json* stop = fields.Find("stop");
  if (!stop) return {};
  std::vector<std::string> strings;
  const auto add = [&](const json& value, const std::string& path) {
    if (!value.is_string()) fields.WrongType(path, "a string", value);
    const auto& text = value.get_ref<const std::string&>();
    CheckLength(text, path, 1, kMaxStopLength);
    strings.push_back(text);
  };
  if (!stop->is_array()) {
    if (!stop->is_string()) fields.WrongType("stop", "a string or an array of strings", *stop);
    add(*stop, "stop");
    return strings;
  }
  if (stop->size() > kMaxStopStrings) {
    ThrowApiError(
        "stop", "invalid_value",
        fmt::format("'stop' may have at most {} strings, not {}", kMaxStopStrings, stop->size()));
  }
  for (size_t i = 0; i < stop->size(); ++i) add((*stop)[i], fmt::format("stop[{}]", i));
  return strings;
}

// Above 0, up to `max`; 1 if absent. What is too small for a float is the smallest one.
float ParsePositive(Fields& fields, const char* name, double max, std::string_view hint) {
  const NumberRange range{.min = 0, .max = max, .above_min = true};
  const double value = fields.Number(name, range, hint).value_or(1);
  return std::max(static_cast<float>(value), std::numeric_limits<float>::min());
}

void ParseCuts(Fields& fields, SamplingParams& sampling) {
  sampling.temperature = static_cast<float>(fields.Number("temperature", {0, 2}).value_or(1));
  sampling.top_p =
      ParsePositive(fields, "top_p", 1, "; for the likeliest token alone send temperature 0");
  // vLLM's -1 and 0 both mean: all tokens.
  sampling.top_k = static_cast<int32_t>(
      std::max<int64_t>(0, fields.Integer("top_k", -1, kInt32Max).value_or(0)));
  const double min_p = fields.Number("min_p", {.min = 0, .max = 1, .below_max = true}).value_or(0);
  sampling.min_p = std::min(static_cast<float>(min_p), std::nextafter(1.0f, 0.0f));
  sampling.typical_p = ParsePositive(fields, "typical_p", 1, "");
}

void ParsePenalties(Fields& fields, SamplingParams& sampling) {
  sampling.frequency_penalty =
      static_cast<float>(fields.Number("frequency_penalty", {-2, 2}).value_or(0));
  sampling.presence_penalty =
      static_cast<float>(fields.Number("presence_penalty", {-2, 2}).value_or(0));
  sampling.repetition_penalty =
      ParsePositive(fields, "repetition_penalty", 10, "; 1 changes nothing");
}

// {"15496": -100, "11": 2.5}
std::vector<TokenBias> ParseLogitBias(Fields& fields) {
  const json* object = fields.Find("logit_bias");
  if (!object) return {};
  if (!object->is_object()) {
    fields.WrongType("logit_bias", "an object of token ids and numbers", *object);
  }
  if (object->size() > kMaxLogitBiases) {
    ThrowApiError("logit_bias", "invalid_value",
                  fmt::format("'logit_bias' may have at most {} entries, not {}", kMaxLogitBiases,
                              object->size()));
  }
  constexpr NumberRange kBiases{-100, 100};
  std::vector<TokenBias> biases;
  for (const auto& [name, value] : object->items()) {
    const std::string path = MemberPath("logit_bias", name);
    TokenBias entry;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), entry.token);
    // Written in one way only, so that no token is named twice.
    if (error != std::errc() || entry.token < 0 || std::to_string(entry.token) != name) {
      ThrowApiError(path, "invalid_value",
                    fmt::format("'{}' must be named by a token id, such as \"15496\"", path));
    }
    if (!value.is_number()) fields.WrongType(path, kBiases.Describe(), value);
    const auto bias = value.get<double>();
    if (!kBiases.Has(bias)) {
      ThrowApiError(path, "invalid_value",
                    fmt::format("'{}' must be {}, not {}", path, kBiases.Describe(), value.dump()));
    }
    entry.bias = static_cast<float>(bias);
    biases.push_back(entry);
  }
  return biases;
}

void ParseSeed(Fields& fields, SamplingParams& sampling) {
  // Negative seeds are as good as any other.
  if (const auto seed = fields.Integer("seed", std::numeric_limits<int64_t>::min(),
                                       std::numeric_limits<int64_t>::max())) {
    sampling.seed = static_cast<uint64_t>(*seed);
  }
}

// OpenAI's and vLLM's parameters that would change the answer and are not built.
void RefuseUnsupported(Fields& fields) {
  fields.OnlyNeutral("length_penalty", {1});
  fields.OnlyNeutral("use_beam_search", {false});
  fields.OnlyNeutral("skip_special_tokens", {true});
  fields.OnlyNeutral("spaces_between_special_tokens", {true});
  fields.OnlyNeutral("include_stop_str_in_output", {false});
  fields.OnlyNeutral("stop_token_ids", {json::array()});
  fields.OnlyNeutral("bad_words", {json::array()});
  fields.OnlyNeutral("prompt_logprobs", {});
  fields.OnlyNeutral("truncate_prompt_tokens", {});
  // These change nothing of the answer.
  fields.IgnoreStrings({"user", "service_tier", "safety_identifier", "prompt_cache_key",
                        "prompt_cache_retention", "request_id"});
  fields.Bool("store");
  fields.IgnoreObject("prediction");
  CheckMetadata(fields);
}

// More than n would have to be ranked, and fewer leave nothing to choose from.
void CheckBestOf(Fields& fields, int32_t n) {
  const auto best_of = fields.Integer("best_of", 0, kInt32Max);
  if (!best_of || *best_of == n) return;
  ThrowApiError(
      "best_of", "unsupported_parameter",
      fmt::format("'best_of' is {} and 'n' is {}: this server returns every choice that it "
                  "makes, so 'best_of' must be equal to 'n'; leave it out or send {}",
                  *best_of, n, n));
}

void ParseSampling(Fields& fields, GenerationParams& params) {
  ParseCuts(fields, params.sampling);
  ParsePenalties(fields, params.sampling);
  params.sampling.logit_bias = ParseLogitBias(fields);
  ParseSeed(fields, params.sampling);
  params.n = static_cast<int32_t>(fields.Integer("n", 1, kMaxChoicesPerPrompt).value_or(1));
  CheckBestOf(fields, params.n);
  params.min_tokens = static_cast<int32_t>(fields.Integer("min_tokens", 0, kInt32Max).value_or(0));
  params.stop = ParseStop(fields);
  params.ignore_eos = fields.Bool("ignore_eos").value_or(false);
}

}  // namespace

void ParseCommon(Fields& fields, GenerationParams& params) {
  params.model = ParseModel(fields);
  params.stream = fields.Bool("stream").value_or(false);
  ParseSampling(fields, params);
  params.priority = ParsePriority(fields);
  params.cache_salt = ParseCacheSalt(fields);
  RefuseUnsupported(fields);
}

std::string ParseModel(Fields& fields) {
  const json& model = fields.Require("model", "the name of the model, as /v1/models lists it");
  if (!model.is_string()) fields.WrongType("model", "a string", model);
  return model.get<std::string>();
}

int32_t ParsePriority(Fields& fields) {
  return static_cast<int32_t>(fields.Integer("priority", 0, kMaxRequestPriority).value_or(0));
}

std::string ParseCacheSalt(Fields& fields) {
  return fields.String("cache_salt", 1, kMaxCacheSaltLength).value_or("");
}

std::optional<int32_t> ParseMaxTokens(Fields& fields, const char* name, int64_t least) {
  const auto value = fields.Integer(name, least, kInt32Max);
  if (!value) return std::nullopt;
  return static_cast<int32_t>(*value);
}

const json* CheckMetadata(Fields& fields) {
  const json* metadata = fields.Find("metadata");
  if (!metadata) return nullptr;
  if (!metadata->is_object()) fields.WrongType("metadata", "an object of strings", *metadata);
  if (metadata->size() > kMaxMetadata) {
    ThrowApiError("metadata", "invalid_value",
                  fmt::format("'metadata' may have at most {} entries, not {}", kMaxMetadata,
                              metadata->size()));
  }
  for (const auto& [name, text] : metadata->items()) {
    const std::string path = MemberPath("metadata", name);
    if (!text.is_string()) fields.WrongType(path, "a string", text);
    const size_t name_length = Utf8Length(name);
    const size_t length = Utf8Length(text.get_ref<const std::string&>());
    if (name_length <= kMaxMetadataKeyLength && length <= kMaxMetadataValueLength) continue;
    ThrowApiError(
        path, "invalid_value",
        fmt::format("a name in 'metadata' may have {} characters and a value {}, not {} and {}",
                    kMaxMetadataKeyLength, kMaxMetadataValueLength, name_length, length));
  }
  return metadata;
}

void RefuseUnlessStreamed(const GenerationParams& params) {
  if (params.stream) return;
  ThrowApiError("stream_options", "invalid_value",
                "'stream_options' may be sent only together with 'stream': true");
}

std::optional<int32_t> ParseCompletionLogprobs(Fields& fields) {
  const json* value = fields.Find("logprobs");
  if (value && value->is_boolean() && !value->get<bool>()) return std::nullopt;
  const auto top = fields.Integer("logprobs", 0, kMaxTopLogprobs);
  if (!top) return std::nullopt;
  return static_cast<int32_t>(*top);
}

std::optional<int32_t> ParseChatLogprobs(Fields& fields) {
  if (const json* value = fields.Find("logprobs"); value && value->is_number()) {
    fields.WrongType("logprobs", "true or false (how many alternatives, says 'top_logprobs' here)",
                     *value);
  }
  const bool wanted = fields.Bool("logprobs").value_or(false);
  const auto top = fields.Integer("top_logprobs", 0, kMaxTopLogprobs);
  if (wanted) return static_cast<int32_t>(top.value_or(0));
  if (top.value_or(0) > 0) {
    ThrowApiError("top_logprobs", "invalid_value",
                  fmt::format("'top_logprobs' is {}, which may be sent only together with "
                              "'logprobs': true",
                              *top));
  }
  return std::nullopt;
}

}  // namespace quern::server
