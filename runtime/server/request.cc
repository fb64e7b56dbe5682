#include "runtime/server/request.h"

#include <cmath>

#include "runtime/server/fields.h"
#include "runtime/server/sampling_fields.h"
#include "runtime/server/template_variables.h"

namespace quern::server {
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

GenerationParams ParseParams(Fields& fields, std::string_view body) {
  GenerationParams params;
  ParseCommon(fields, params);
  if (const json* options = fields.Find("stream_options")) {
    Fields inner(*options, "stream_options");
    params.include_usage = inner.Bool("include_usage").value_or(false);
    inner.Bool("include_obfuscation");  // padding of OpenAI's against traffic analysis: not needed
    inner.OnlyNeutral("continuous_usage_stats", {false});
    inner.RefuseUnknown();
    RefuseUnlessStreamed(params);
  }
  params.structured = ParseStructuredOutput(fields, body, FormatMember::kResponseFormat);
  return params;
}

std::vector<TokenId> ParseTokens(const json& array, const std::string& path) {
  std::vector<TokenId> tokens;
  tokens.reserve(array.size());
  for (size_t i = 0; i < array.size(); ++i) {
    const json& value = array[i];
    // 5.0 is a whole number, too.
    const double number = value.is_number() ? value.get<double>() : -1;
    if (!(number >= 0 && number <= kInt32Max && number == std::floor(number))) {
      const std::string at = fmt::format("{}[{}]", path, i);
      ThrowApiError(at, "invalid_type",
                    fmt::format("'{}' must be a token id, not {}", at, Shown(value)));
    }
    tokens.push_back(static_cast<TokenId>(number));
  }
  if (tokens.empty()) {
    ThrowApiError(path, "invalid_value", fmt::format("'{}' must have at least one token", path));
  }
  return tokens;
}

// Whether that is an array of prompts, each with a place of its own.
bool IsListOfPrompts(const json& value) {
  return value.is_array() && !value.empty() && !value[0].is_number();
}

// A string, an array of strings, an array of token ids, or an array of those, at most `most`.
// `elsewhere`: what to add where it is missing.
std::vector<Prompt> ParsePrompts(Fields& fields, const char* name, size_t most,
                                 std::string_view elsewhere) {
  constexpr char kWanted[] = "a string, an array of strings, or an array of token ids";
  const json& prompt = fields.Require(name, fmt::format("{}{}", kWanted, elsewhere));
  if (prompt.is_string()) return {prompt.get<std::string>()};
  if (!prompt.is_array()) fields.WrongType(name, kWanted, prompt);
  if (prompt.empty()) {
    ThrowApiError(name, "invalid_value", fmt::format("'{}' must not be an empty array", name));
  }
  if (prompt[0].is_number()) return {ParseTokens(prompt, name)};
  if (prompt.size() > most) {
    ThrowApiError(
        name, "invalid_value",
        fmt::format("'{}' may have at most {} entries, not {}", name, most, prompt.size()));
  }
  std::vector<Prompt> prompts;
  for (size_t i = 0; i < prompt.size(); ++i) {
    const std::string path = fmt::format("{}[{}]", name, i);
    if (prompt[i].is_string()) {
      prompts.emplace_back(prompt[i].get<std::string>());
    } else if (prompt[i].is_array()) {
      prompts.emplace_back(ParseTokens(prompt[i], path));
    } else {
      fields.WrongType(path, "a string or an array of token ids", prompt[i]);
    }
  }
  return prompts;
}

std::string FlattenContent(const json& content, const std::string& path) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) {
    ThrowApiError(path, "invalid_type",
                  fmt::format("'{}' must be a string or an array of text parts, not {}", path,
                              Shown(content)));
  }
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string part_path = fmt::format("{}[{}]", path, i);
    Fields part(content[i], part_path);
    const json& type = part.Require("type", "\"text\"");
    if (!type.is_string()) part.WrongType("type", "\"text\"", type);
    if (type != "text") {
      ThrowApiError(
          part.Path("type"), "unsupported_parameter",
          fmt::format("'{}' must be \"text\"; this model reads nothing else, such as "
                      "\"{}\"",
                      part.Path("type"), type.get_ref<const std::string&>().substr(0, 40)));
    }
    const json& value = part.Require("text", "a string");
    if (!value.is_string()) part.WrongType("text", "a string", value);
    text += value.get_ref<const std::string&>();
  }
  return text;
}

// An assistant's or another's message, but for its role.
ordered_json ParseMessage(Fields& message, const std::string& path, const std::string& role,
                          size_t& argument_bytes) {
  ordered_json parsed = {{"role", role}, {"content", ""}};
  if (role == "assistant") {
    if (ordered_json calls = ParseToolCalls(message, argument_bytes); !calls.is_null()) {
      parsed["tool_calls"] = std::move(calls);
    }
  } else {
    message.OnlyNeutral("tool_calls", {json::array()}, "only an assistant's message has them");
  }
  if (role == "tool") {
    const json& id = message.Require("tool_call_id", "the id of the call that this answers");
    if (!id.is_string()) message.WrongType("tool_call_id", "a string", id);
    parsed["tool_call_id"] = id.get<std::string>();
  }
  message.OnlyNeutral("function_call", {});
  message.OnlyNeutral("audio", {});
  message.IgnoreStrings({"refusal", "name"});
  message.IgnoreArray("annotations");
  const json* content = message.Find("content");
  if (content == nullptr && !parsed.contains("tool_calls")) {
    content = &message.Require("content", "a string");
  }
  if (content != nullptr) parsed["content"] = FlattenContent(*content, path + ".content");
  message.RefuseUnknown();
  return parsed;
}

Conversation ParseConversation(const json& messages) {
  if (!messages.is_array() || messages.empty()) {
    ThrowApiError("messages", messages.is_array() ? "invalid_value" : "invalid_type",
                  fmt::format("'messages' must be an array of at least one message, not {}",
                              messages.is_array() ? "an empty one" : Shown(messages)));
  }
  constexpr char kRoles[] = "\"system\", \"user\", \"assistant\" or \"tool\"";
  Conversation conversation;
  conversation.messages = ordered_json::array();
  size_t argument_bytes = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string path = fmt::format("messages[{}]", i);
    Fields message(messages[i], path);
    const json& role_value = message.Require("role", kRoles);
    if (!role_value.is_string()) message.WrongType("role", "a string", role_value);
    std::string role = role_value.get<std::string>();
    if (role == "developer") role = "system";  // OpenAI's newer name for the same
    if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
      ThrowApiError(path + ".role", "invalid_value",
                    fmt::format("'{}.role' must be {}, not {}", path, kRoles, Shown(role_value)));
    }
    conversation.messages.push_back(ParseMessage(message, path, role, argument_bytes));
    conversation.has_calls |= role == "tool" || conversation.messages.back().contains("tool_calls");
  }
  return conversation;
}

void CheckChoices(const CompletionRequest& request) {
  const size_t choices = request.prompts.size() * static_cast<size_t>(request.params.n);
  if (choices <= kMaxChoices) return;
  ThrowApiError("n", "invalid_value",
                fmt::format("{} prompts with 'n' {} make {} choices; at most {} are made in one "
                            "request",
                            request.prompts.size(), request.params.n, choices, kMaxChoices));
}

CompletionRequest ReadCompletion(Fields& fields, std::string_view body) {
  CompletionRequest request;
  request.params = ParseParams(fields, body);
  request.echo = fields.Bool("echo").value_or(false);
  // OpenAI's default for completions; a chat's is what is left of the context. Of a prompt that is
  // echoed the log-probabilities may be all that is wanted.
  request.params.max_tokens =
      ParseMaxTokens(fields, "max_tokens", request.echo ? 0 : 1).value_or(16);
  request.prompts =
      ParsePrompts(fields, "prompt", kMaxPrompts,
                   fields.Has("messages") ? "; 'messages' are sent to /v1/chat/completions" : "");
  request.is_list = IsListOfPrompts(*fields.Find("prompt"));
  request.add_special_tokens = fields.Bool("add_special_tokens").value_or(true);
  CheckChoices(request);
  request.params.top_logprobs = ParseCompletionLogprobs(fields);
  fields.OnlyNeutral("suffix", {""});
  fields.RefuseUnknown();
  return request;
}

EmbeddingRequest ReadEmbedding(Fields& fields, std::string_view /*body*/) {
  EmbeddingRequest request;
  request.model = ParseModel(fields);
  request.inputs = ParsePrompts(fields, "input", kMaxEmbeddingInputs, "");
  request.is_list = IsListOfPrompts(*fields.Find("input"));
  const std::string format = fields.String("encoding_format").value_or("float");
  if (format != "float" && format != "base64") {
    ThrowApiError("encoding_format", "invalid_value",
                  fmt::format("'encoding_format' must be \"float\" or \"base64\", not {}",
                              Shown(json(format))));
  }
  request.base64 = format == "base64";
  if (const auto dimensions = fields.Integer("dimensions", 1, kInt32Max)) {
    request.dimensions = static_cast<int32_t>(*dimensions);
  }
  request.add_special_tokens = fields.Bool("add_special_tokens").value_or(true);
  request.priority = ParsePriority(fields);
  request.cache_salt = ParseCacheSalt(fields);
  fields.OnlyNeutral("truncate_prompt_tokens", {});
  fields.OnlyNeutral("normalize", {true});
  fields.IgnoreStrings({"user", "request_id"});
  fields.RefuseUnknown();
  return request;
}

ChatRequest ReadChat(Fields& fields, std::string_view body) {
  ChatRequest request;
  request.params = ParseParams(fields, body);
  request.params.max_tokens = ParseMaxTokens(fields, "max_completion_tokens");
  if (const auto older = ParseMaxTokens(fields, "max_tokens")) {
    if (request.params.max_tokens && *request.params.max_tokens != *older) {
      ThrowApiError("max_tokens", "invalid_value",
                    "'max_tokens' and 'max_completion_tokens' are the same and must not differ");
    }
    request.params.max_tokens = older;
  }
  const char* elsewhere = fields.Has("prompt")  ? "; a 'prompt' is sent to /v1/completions"
                          : fields.Has("input") ? "; an 'input' is sent to /v1/responses"
                                                : "";
  request.conversation = ParseConversation(
      fields.Require("messages", fmt::format("an array of messages{}", elsewhere)));
  request.conversation.tools = ParseTools(fields, body, ToolShape::kNested);
  HoldToCalls(request.conversation.tools, request.params.structured);
  request.conversation.template_variables = ParseTemplateVariables(fields, body);
  request.add_generation_prompt = fields.Bool("add_generation_prompt").value_or(true);
  request.params.top_logprobs = ParseChatLogprobs(fields);
  fields.OnlyNeutral("echo", {false});
  fields.OnlyNeutral("functions", {json::array()}, "send 'tools'");
  fields.OnlyNeutral("function_call", {"none", "auto"}, "send 'tool_choice'");
  fields.OnlyNeutral("modalities", {json::array({"text"})});
  fields.OnlyNeutral("audio", {});
  fields.OnlyNeutral("web_search_options", {});
  fields.OnlyNeutral("reasoning_effort", {"none"}, kEffortAdvice);
  fields.OnlyNeutral("verbosity", {"medium"});
  fields.OnlyNeutral("chat_template", {},
                     "the server's own is used, which its option --chat-template sets");
  fields.OnlyNeutral("documents", {json::array()});
  fields.OnlyNeutral("continue_final_message", {false});
  fields.OnlyNeutral("add_special_tokens", {false});
  fields.RefuseUnknown();
  return request;
}

TokenizeRequest ReadTokenize(Fields& fields, std::string_view body) {
  TokenizeRequest request;
  request.model = fields.String("model").value_or("");
  request.add_special_tokens = fields.Bool("add_special_tokens").value_or(true);
  request.add_generation_prompt = fields.Bool("add_generation_prompt").value_or(true);
  request.return_token_strs = fields.Bool("return_token_strs").value_or(false);
  if (const json* messages = fields.Find("messages")) {
    if (fields.Find("prompt")) {
      ThrowApiError("prompt", "invalid_value", "send either 'prompt' or 'messages', not both");
    }
    Conversation conversation = ParseConversation(*messages);
    conversation.tools = ParseTools(fields, body, ToolShape::kNested);
    conversation.template_variables = ParseTemplateVariables(fields, body);
    request.input = std::move(conversation);
    fields.OnlyNeutral("add_special_tokens", {false}, "a conversation's template writes them");
  } else {
    const json& prompt = fields.Require("prompt", "a string (or send 'messages')");
    if (!prompt.is_string()) fields.WrongType("prompt", "a string", prompt);
    request.input = prompt.get<std::string>();
    fields.OnlyNeutral("add_generation_prompt", {false}, "only 'messages' have one: leave it out");
  }
  fields.RefuseUnknown();
  return request;
}

DetokenizeRequest ReadDetokenize(Fields& fields, std::string_view /*body*/) {
  DetokenizeRequest request;
  request.model = fields.String("model").value_or("");
  const json& tokens = fields.Require("tokens", "an array of token ids");
  if (!tokens.is_array()) fields.WrongType("tokens", "an array of token ids", tokens);
  if (!tokens.empty()) request.tokens = ParseTokens(tokens, "tokens");
  fields.RefuseUnknown();
  return request;
}

}  // namespace

ApiResult<CompletionRequest> ParseCompletionRequest(std::string_view body,
                                                    std::set<std::string>* known) {
  return ParseBody<CompletionRequest>(body, ReadCompletion, known);
}
ApiResult<EmbeddingRequest> ParseEmbeddingRequest(std::string_view body,
                                                  std::set<std::string>* known) {
  return ParseBody<EmbeddingRequest>(body, ReadEmbedding, known);
}
ApiResult<ChatRequest> ParseChatRequest(std::string_view body, std::set<std::string>* known) {
  return ParseBody<ChatRequest>(body, ReadChat, known);
}
ApiResult<TokenizeRequest> ParseTokenizeRequest(std::string_view body,
                                                std::set<std::string>* known) {
  return ParseBody<TokenizeRequest>(body, ReadTokenize, known);
}
ApiResult<DetokenizeRequest> ParseDetokenizeRequest(std::string_view body,
                                                    std::set<std::string>* known) {
  return ParseBody<DetokenizeRequest>(body, ReadDetokenize, known);
}

}  // namespace quern::server
