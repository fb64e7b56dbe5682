#include "runtime/server/encode.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "runtime/server/tool_prompt.h"

namespace quern::server {

ApiError ModelNotFound(std::string_view asked, const LoadedModel& model) {
  return ApiError{404,
                  fmt::format("the model '{}' does not exist here; this server has '{}'",
                              asked.substr(0, 200), model.served_name),
                  "invalid_request_error", "model", "model_not_found"};
}

std::optional<ApiError> CheckTokens(const std::string& param, const std::vector<TokenId>& tokens,
                                    const LoadedModel& model) {
  if (tokens.empty()) {
    return ApiError{400, fmt::format("'{}' is empty: the model needs at least one token", param),
                    "invalid_request_error", param, "invalid_value"};
  }
  const int vocab = model.tokenizer->vocab_size();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < vocab) continue;
    const std::string place = fmt::format("{}[{}]", param, i);
    return ApiError{400,
                    fmt::format("'{}' is {}, outside the model's vocabulary of {} (0 to {})", place,
                                tokens[i], vocab, vocab - 1),
                    "invalid_request_error", place, "invalid_value"};
  }
  return std::nullopt;
}

ApiError ContextExceeded(const std::string& param, int64_t context, int64_t prompt, int64_t wanted,
                         std::string_view how_many) {
  ApiError error;
  error.param = param;
  error.code = "context_length_exceeded";
  // Of several it says which.
  const std::string which = param.ends_with(']') ? fmt::format(" in '{}'", param) : "";
  error.message =
      prompt >= context
          ? fmt::format(
                "the prompt{} has {}{} tokens; the model's context holds {}, of which the answer "
                "needs at least one: shorten the prompt",
                which, how_many, prompt, context)
          : fmt::format(
                "the {} tokens of the prompt{} and the {} asked for make {}, more than the context "
                "of {}; ask for at most {} or shorten the prompt",
                prompt, which, wanted, prompt + wanted, context, context - prompt);
  return error;
}

// /tokenize and /detokenize take texts that are too long for the model, so that their length can be
// asked for, but not any length: an answer may be a hundred times as large as its question.
constexpr int64_t kTextContexts = 4;

std::optional<ApiError> TooManyTokens(std::string_view param, int64_t tokens,
                                      const LoadedModel& model, std::string_view how_many) {
  const int64_t limit = model.engine->max_context_tokens() * kTextContexts;
  if (tokens <= limit) return std::nullopt;
  ApiError error;
  error.param = param;
  error.code = "context_length_exceeded";
  error.message = fmt::format(
      "'{}' makes {}{} tokens; at most {} are taken in one call, {} times the model's context: "
      "send it in parts",
      param, how_many, tokens, limit, kTextContexts);
  return error;
}

ApiResult<std::vector<TokenId>> Encode(const std::string& text, EncodeOptions options,
                                       const std::string& param, const LoadedModel& model,
                                       Purpose purpose) {
  // No token stands for more bytes than the vocabulary's longest: a prompt that is certain to be
  // too long is refused before the work of encoding it.
  const int64_t context = model.engine->max_context_tokens();
  const int64_t at_least = static_cast<int64_t>(text.size()) / model.longest_token_bytes;
  if (purpose == Purpose::kCount) {
    if (auto error = TooManyTokens(param, at_least, model, "at least ")) return std::move(*error);
  } else if (at_least > context) {
    return ContextExceeded(param, context, at_least, 1, "at least ");
  }
  auto tokens = model.tokenizer->Encode(text, options);
  if (!tokens) return FromPrompt(tokens.error(), param);
  return std::move(tokens).value();
}

ApiResult<std::vector<TokenId>> EncodeChat(const Conversation& conversation,
                                           bool add_generation_prompt, const std::string& param,
                                           const LoadedModel& model, Purpose purpose) {
  if (!model.chat_template) {
    ApiError error;
    error.param = param;
    error.code = "no_chat_template";
    error.message =
        fmt::format("the model '{}' cannot chat: {}. Use /v1/completions with a 'prompt'",
                    model.served_name, model.no_chat_reason);
    return error;
  }
  const nlohmann::ordered_json tools =
      conversation.tools ? conversation.tools->tools : nlohmann::ordered_json();
  const bool as_text = (conversation.tools || conversation.has_calls) &&
                       !model.chat_template->KnowsToolCalls(conversation.tools.has_value());
  const nlohmann::ordered_json& variables = conversation.template_variables;
  const nlohmann::ordered_json none;
  const nlohmann::ordered_json written =
      as_text ? WriteToolsAsText(conversation.messages, tools) : none;
  auto text =
      model.chat_template->Render({.messages = as_text ? written : conversation.messages,
                                   .tools = as_text ? none : tools,
                                   .add_generation_prompt = add_generation_prompt,
                                   .variables = variables.is_null() ? nullptr : &variables});
  if (!text) {
    Error error = std::move(text).error();
    constexpr char kWhere[] = "chat template";  // with which a template's own errors begin
    if (error.message.starts_with(kWhere)) {
      error.message.insert(0, "the model's ");
    } else {
      error = std::move(error).Within("the model's chat template");
    }
    return FromPrompt(error, param);
  }
  // The template writes the special tokens itself, BOS included.
  return Encode(*text, EncodeOptions{.add_special = false, .parse_special = true}, param, model,
                purpose);
}

}  // namespace quern::server
