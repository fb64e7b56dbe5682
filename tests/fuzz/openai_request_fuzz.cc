// Bodies of requests -> checked requests or errors. The first byte picks the endpoint.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "runtime/server/request.h"
#include "runtime/server/responses/response_request.h"
#include "runtime/server/tool_prompt.h"

namespace {

using namespace quern::server;

// An error must be fit to send: a client's status, and JSON that can be read back.
void CheckError(const ApiError& error) {
  if (error.status < 400 || error.status > 499 || error.message.empty()) abort();
  if (error.message.size() > 2000) abort();
  if (!nlohmann::json::parse(ToJson(error), nullptr, false).contains("error")) abort();
}

void CheckParams(const GenerationParams& params) {
  const auto& sampling = params.sampling;
  if (!(sampling.temperature >= 0 && sampling.temperature <= 2)) abort();
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) abort();
  if (sampling.top_k < 0 || !(sampling.min_p >= 0 && sampling.min_p < 1)) abort();
  // What is read here the engine takes too, but for what depends on the model.
  if (!quern::ValidateSamplingParams(sampling).ok()) abort();
  for (const auto& entry : sampling.logit_bias) {
    if (entry.token < 0) abort();
  }
  if (params.n < 1 || params.n > kMaxChoicesPerPrompt || params.min_tokens < 0) abort();
  if (params.top_logprobs.value_or(0) < 0) abort();
  if (params.top_logprobs.value_or(0) > quern::kMaxTopLogprobs) abort();
  if (params.max_tokens && *params.max_tokens < 0) abort();
  if (params.stop.size() > kMaxStopStrings) abort();
  if (params.priority < 0 || params.priority > kMaxRequestPriority) abort();
  if (params.cache_salt.size() > 4 * kMaxCacheSaltLength) abort();
}

void CheckChat(const ChatRequest& request) {
  CheckParams(request.params);
  const Conversation& conversation = request.conversation;
  for (const auto& message : conversation.messages) {
    if (!message["role"].is_string() || !message["content"].is_string()) abort();
  }
  const auto& tools = conversation.tools;
  if (tools && (tools->names.empty() || tools->names.size() != tools->schemas.size())) abort();
  (void)WriteToolsAsText(conversation.messages, tools ? tools->tools : nlohmann::ordered_json());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 6) {  // '0' to '5'
    case 0: {
      const auto parsed = ParseCompletionRequest(body);
      if (const auto* error = std::get_if<ApiError>(&parsed)) return CheckError(*error), 0;
      const auto& request = std::get<CompletionRequest>(parsed);
      CheckParams(request.params);
      if (request.prompts.empty() || request.prompts.size() > kMaxPrompts) abort();
      if (request.prompts.size() * static_cast<size_t>(request.params.n) > kMaxChoices) abort();
      if (request.params.max_tokens == 0 && !request.echo) abort();
      return 0;
    }
    case 1: {
      const auto parsed = ParseChatRequest(body);
      if (const auto* error = std::get_if<ApiError>(&parsed)) return CheckError(*error), 0;
      return CheckChat(std::get<ChatRequest>(parsed)), 0;
    }
    case 5: {
      const auto parsed = ParseResponseRequest(body);
      if (const auto* error = std::get_if<ApiError>(&parsed)) return CheckError(*error), 0;
      const auto& request = std::get<ResponseRequest>(parsed);
      CheckChat(request);
      if (request.params.n != 1 || !request.params.stream_repeats) abort();
      const std::string repeated = "{" + request.repeated + "}";
      if (!nlohmann::json::parse(repeated, nullptr, false).is_object()) abort();
      // An answer repeats no more than it was sent: text that is no UTF-8 is no JSON.
      if (repeated.size() > body.size() + 1000 + 60 * kMaxTools) abort();
      return 0;
    }
    case 4: {
      const auto parsed = ParseEmbeddingRequest(body);
      if (const auto* error = std::get_if<ApiError>(&parsed)) return CheckError(*error), 0;
      const auto& request = std::get<EmbeddingRequest>(parsed);
      if (request.inputs.empty() || request.inputs.size() > kMaxEmbeddingInputs) abort();
      if (request.dimensions.value_or(1) < 1) abort();
      return 0;
    }
    case 2: {
      const auto parsed = ParseTokenizeRequest(body);
      if (const auto* error = std::get_if<ApiError>(&parsed)) CheckError(*error);
      return 0;
    }
    default: {
      const auto parsed = ParseDetokenizeRequest(body);
      if (const auto* error = std::get_if<ApiError>(&parsed)) CheckError(*error);
      return 0;
    }
  }
}
