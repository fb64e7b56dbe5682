#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "runtime/server/encode.h"
#include "runtime/server/json_text.h"
#include "runtime/server/prepare.h"

namespace quern::server {
using nlohmann::json;

ApiResult<std::string> Tokenize(std::string_view body, const LoadedModel& model) {
  auto parsed = ParseTokenizeRequest(body);
  if (auto* error = std::get_if<ApiError>(&parsed)) return std::move(*error);
  const auto& request = std::get<TokenizeRequest>(parsed);
  if (!request.model.empty() && request.model != model.served_name) {
    return ModelNotFound(request.model, model);
  }
  const auto* text = std::get_if<std::string>(&request.input);
  auto encoded =
      text ? Encode(*text, {.add_special = request.add_special_tokens, .parse_special = true},
                    "prompt", model, Purpose::kCount)
           : EncodeChat(std::get<Conversation>(request.input), request.add_generation_prompt,
                        "messages", model, Purpose::kCount);
  if (auto* error = std::get_if<ApiError>(&encoded)) return std::move(*error);
  const auto& tokens = std::get<std::vector<TokenId>>(encoded);
  if (auto error = TooManyTokens(text ? "prompt" : "messages", std::ssize(tokens), model)) {
    return std::move(*error);
  }
  json reply = {{"count", tokens.size()},
                {"max_model_len", model.engine->max_context_tokens()},
                {"tokens", tokens},
                {"token_strs", nullptr}};
  if (request.return_token_strs) {
    json strings = json::array();
    for (const TokenId token : tokens) {
      strings.push_back(model.tokenizer->TokenBytes(token, /*render_special=*/true));
    }
    reply["token_strs"] = std::move(strings);
  }
  return JsonText(reply);
}

ApiResult<std::string> Detokenize(std::string_view body, const LoadedModel& model) {
  auto parsed = ParseDetokenizeRequest(body);
  if (auto* error = std::get_if<ApiError>(&parsed)) return std::move(*error);
  const auto& request = std::get<DetokenizeRequest>(parsed);
  if (!request.model.empty() && request.model != model.served_name) {
    return ModelNotFound(request.model, model);
  }
  if (auto error = TooManyTokens("tokens", std::ssize(request.tokens), model)) {
    return std::move(*error);
  }
  const int vocab = model.tokenizer->vocab_size();
  for (size_t i = 0; i < request.tokens.size(); ++i) {
    if (request.tokens[i] < vocab) continue;
    const std::string param = fmt::format("tokens[{}]", i);
    return ApiError{400,
                    fmt::format("'{}' is {}, outside the model's vocabulary of {} (0 to {})", param,
                                request.tokens[i], vocab, vocab - 1),
                    "invalid_request_error", param, "invalid_value"};
  }
  const json reply = {{"prompt", model.tokenizer->Decode(request.tokens, /*render_special=*/true)}};
  return JsonText(reply);
}

}  // namespace quern::server
