#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/engine/engine.h"
#include "runtime/server/api_error.h"
#include "runtime/server/structured_output.h"
#include "runtime/server/tools.h"
#include "runtime/tokenizer/tokenizer.h"

namespace quern::server {

// Bounds of a request that do not depend on the model.
constexpr size_t kMaxStopStrings = 16;
// In characters (code points), as OpenAPI's maxLength counts them.
constexpr size_t kMaxStopLength = 1024;  // of one stop string
constexpr size_t kMaxCacheSaltLength = 256;
constexpr int32_t kMaxRequestPriority = 1'000'000;
constexpr size_t kMaxPrompts = 64;            // of one /v1/completions request
constexpr size_t kMaxEmbeddingInputs = 2048;  // of one /v1/embeddings request, as OpenAI
constexpr int32_t kMaxChoicesPerPrompt = 16;  // n
constexpr size_t kMaxChoices = 128;           // prompts times n
// What an answer that is sent whole may come to, if each of its tokens is the vocabulary's longest:
// of all choices, with what they echo and with log-probabilities. While it is written it takes four
// times as much. A stream is sent as it comes and may have any length; of its echo so much is held.
constexpr int64_t kMaxAnswerBytes = 32 << 20;

// What all requests for text have in common.
struct GenerationParams {
  std::string model;
  bool stream = false;
  bool include_usage = false;         // stream_options.include_usage
  bool stream_repeats = false;        // the stream's last events have all of the answer
  std::optional<int32_t> max_tokens;  // at least 1; of a completion that echoes, 0
  // Names for people, which depend on the API.
  const char* max_tokens_name = "max_tokens";
  const char* logprobs_name = "logprobs";
  SamplingParams sampling;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  int32_t priority = 0;    // vLLM's: a higher number is served later
  std::string cache_salt;  // vLLM's: prompts are only found again under the same one
  int32_t min_tokens = 0;
  int32_t n = 1;                        // choices for each prompt
  std::optional<int32_t> top_logprobs;  // as in GenerationRequest
  std::optional<StructuredOutput> structured;
};

using Prompt = std::variant<std::string, std::vector<TokenId>>;

struct CompletionRequest {
  GenerationParams params;
  std::vector<Prompt> prompts;  // at least one; each becomes a choice
  bool is_list = false;         // "prompt" is an array of them
  bool add_special_tokens = true;
  bool echo = false;  // the prompt's text before the answer's
};

struct EmbeddingRequest {
  std::string model;
  std::vector<Prompt> inputs;  // 1 to kMaxEmbeddingInputs; each becomes a vector
  bool is_list = false;        // "input" is an array of them
  bool base64 = false;         // encoding_format
  std::optional<int32_t> dimensions;
  bool add_special_tokens = true;
  int32_t priority = 0;  // these two as in GenerationParams
  std::string cache_salt;
};

// [{role, content, ...}]: content flattened to a string, "developer" turned into "system"; of an
// assistant with `tool_calls`, whose arguments are objects; of a "tool" with `tool_call_id`.
struct Conversation {
  nlohmann::ordered_json messages;
  bool has_calls = false;        // messages with `tool_calls` or of a "tool"
  std::optional<ToolUse> tools;  // that may be called next
  // An object: further names that the chat template sees; null: none.
  nlohmann::ordered_json template_variables;
};

struct ChatRequest {
  GenerationParams params;
  Conversation conversation;
  bool add_generation_prompt = true;
};

struct TokenizeRequest {
  std::string model;  // may be empty
  // The text, or a conversation to render first.
  std::variant<std::string, Conversation> input;
  bool add_special_tokens = true;
  bool add_generation_prompt = true;
  bool return_token_strs = false;
};

struct DetokenizeRequest {
  std::string model;  // may be empty
  std::vector<TokenId> tokens;
};

// Pure: bytes of a body -> checked request, or the error to answer with. No input makes them throw,
// overflow the stack or take more memory than some 15 MB (kMaxJsonParts) and twelve times the
// body's size (numbers: two bytes become 16, and half as much again while their array grows).
// OpenAI's API reference: https://platform.openai.com/docs/api-reference
// `known`: where it is not null and the body is right, gets the names of all parameters that there
// are beside those of the body: openapi.json is compared with them.
ApiResult<CompletionRequest> ParseCompletionRequest(std::string_view body,
                                                    std::set<std::string>* known = nullptr);
ApiResult<EmbeddingRequest> ParseEmbeddingRequest(std::string_view body,
                                                  std::set<std::string>* known = nullptr);
ApiResult<ChatRequest> ParseChatRequest(std::string_view body,
                                        std::set<std::string>* known = nullptr);
// The shapes of vLLM's /tokenize and /detokenize.
ApiResult<TokenizeRequest> ParseTokenizeRequest(std::string_view body,
                                                std::set<std::string>* known = nullptr);
ApiResult<DetokenizeRequest> ParseDetokenizeRequest(std::string_view body,
                                                    std::set<std::string>* known = nullptr);

}  // namespace quern::server
