#include "runtime/server/responses/response_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "runtime/server/fields.h"
#include "runtime/server/json_text.h"
#include "runtime/server/responses/response_input.h"
#include "runtime/server/sampling_fields.h"
#include "runtime/server/template_variables.h"
#include "runtime/server/tools.h"
#include "runtime/tokenizer/utf8.h"

namespace quern::server {
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr char kKeepsNothing[] =
    "this server keeps no responses: send the whole conversation in 'input'";
constexpr size_t kMaxLabelLength = 512;  // `user` and the like
// Of all that the answer repeats: a stream holds it three times until its client has read it.
constexpr size_t kMaxRepeatedBytes = 256 * 1024;

// The names that chats have for the same, and what is not built.
void RefuseForeign(Fields& fields) {
  fields.OnlyNeutral("messages", {}, "send 'input'");
  fields.OnlyNeutral("max_tokens", {}, "send 'max_output_tokens'");
  fields.OnlyNeutral("max_completion_tokens", {}, "send 'max_output_tokens'");
  fields.OnlyNeutral("response_format", {}, "send 'text.format'");
  fields.OnlyNeutral("logprobs", {}, "send 'include': [\"message.output_text.logprobs\"]");
  fields.OnlyNeutral("n", {1}, "a response has one answer: send several requests");
  fields.OnlyNeutral("previous_response_id", {}, kKeepsNothing);
  fields.OnlyNeutral("conversation", {}, kKeepsNothing);
  fields.OnlyNeutral("background", {false}, "wait for the answer, or ask for a stream");
  fields.OnlyNeutral("background_options", {});
  fields.OnlyNeutral("prompt", {}, "this server has no stored prompts: send 'instructions'");
  fields.OnlyNeutral("truncation", {"disabled"},
                     "shorten 'input' and send \"disabled\": nothing is cut off here");
  fields.OnlyNeutral("context_management", {json::array()});
  fields.OnlyNeutral("moderation", {});
  fields.OnlyNeutral("access_programs", {});
  fields.OnlyNeutral("image", {});
  fields.OnlyNeutral("prompt_cache_options", {}, "send 'cache_salt' to keep prompts apart");
}

// Models that think have their effort and summaries; none is told apart here.
json ParseReasoning(Fields& fields) {
  const json* value = fields.Find("reasoning");
  json repeated = {{"effort", nullptr}, {"summary", nullptr}};
  if (value == nullptr) return repeated;
  Fields reasoning(*value, "reasoning");
  reasoning.OnlyNeutral("effort", {"none"}, kEffortAdvice);
  if (reasoning.Find("effort")) repeated["effort"] = "none";
  reasoning.OnlyNeutral("summary", {"auto"});  // of what there is: nothing
  reasoning.OnlyNeutral("generate_summary", {"auto"});
  reasoning.OnlyNeutral("context", {"auto"});
  reasoning.OnlyNeutral("mode", {"standard"});
  reasoning.RefuseUnknown();
  return repeated;
}

// Whether the answer's log-probabilities are wanted.
bool ParseInclude(Fields& fields) {
  const json* value = fields.Find("include");
  if (value == nullptr) return false;
  if (!value->is_array()) fields.WrongType("include", "an array of strings", *value);
  bool logprobs = false;
  for (size_t i = 0; i < value->size(); ++i) {
    const json& name = (*value)[i];
    const std::string path = fmt::format("include[{}]", i);
    if (!name.is_string()) fields.WrongType(path, "a string", name);
    if (name == "message.output_text.logprobs") {
      logprobs = true;
    } else if (name != "reasoning.encrypted_content") {  // of items that no answer here has
      ThrowApiError(path, "unsupported_parameter",
                    fmt::format("'{}' must be \"message.output_text.logprobs\", not {}: nothing "
                                "else can be included",
                                path, Shown(name)));
    }
  }
  return logprobs;
}

std::optional<int32_t> ParseLogprobs(Fields& fields, const std::optional<ToolUse>& tools) {
  const bool wanted = ParseInclude(fields);
  const auto top = fields.Integer("top_logprobs", 0, kMaxTopLogprobs);
  if (!wanted && top.value_or(0) > 0) {
    ThrowApiError("top_logprobs", "invalid_value",
                  fmt::format("'top_logprobs' is {}, which may be sent only together with "
                              "'include': [\"message.output_text.logprobs\"]",
                              *top));
  }
  if (!wanted) return std::nullopt;
  // They are of messages alone, and which of an answer's tokens are a call's is told by its text.
  if (tools) {
    ThrowApiError("include", "unsupported_parameter",
                  "log-probabilities together with 'tools' that may be called are not supported by "
                  "this server; leave out one of the two or send 'tool_choice': \"none\"");
  }
  return static_cast<int32_t>(top.value_or(0));
}

void ParseStreamOptions(Fields& fields, const GenerationParams& params) {
  const json* options = fields.Find("stream_options");
  if (options == nullptr) return;
  Fields inner(*options, "stream_options");
  inner.Bool("include_usage");        // it always comes
  inner.Bool("include_obfuscation");  // padding of OpenAI's against traffic analysis: not needed
  inner.RefuseUnknown();
  RefuseUnlessStreamed(params);
}

// With the members that the clients' types require.
json RepeatedTools(const json* tools) {
  if (tools == nullptr) return json::array();
  json repeated = *tools;
  for (json& tool : repeated) {
    for (const char* member : {"description", "parameters", "strict"}) {
      if (!tool.contains(member)) tool[member] = nullptr;
    }
  }
  return repeated;
}

json OrElse(const json* value, const json& otherwise) { return value ? *value : otherwise; }

// All has been read and found right.
std::string Repeat(Fields& fields, const GenerationParams& params, json metadata, json reasoning,
                   const std::optional<std::string>& instructions) {
  json text = OrElse(fields.Find("text"), json::object());
  if (!text.contains("format") || text["format"].is_null()) text["format"] = {{"type", "text"}};
  text["verbosity"] = "medium";
  const ordered_json repeated = {
      {"instructions", instructions ? json(*instructions) : json()},
      {"max_output_tokens", params.max_tokens ? json(*params.max_tokens) : json()},
      {"max_tool_calls", OrElse(fields.Find("max_tool_calls"), nullptr)},
      {"metadata", std::move(metadata)},
      {"model", params.model},
      {"parallel_tool_calls", OrElse(fields.Find("parallel_tool_calls"), true)},
      {"previous_response_id", nullptr},
      {"prompt_cache_key", OrElse(fields.Find("prompt_cache_key"), nullptr)},
      {"reasoning", std::move(reasoning)},
      {"safety_identifier", OrElse(fields.Find("safety_identifier"), nullptr)},
      {"service_tier", "default"},  // there is one
      {"store", false},             // nothing is kept
      {"temperature", OrElse(fields.Find("temperature"), 1.0)},
      {"text", std::move(text)},
      {"tool_choice", OrElse(fields.Find("tool_choice"), "auto")},
      {"tools", RepeatedTools(fields.Find("tools"))},
      {"top_logprobs", params.top_logprobs.value_or(0)},
      {"top_p", OrElse(fields.Find("top_p"), 1.0)},
      {"truncation", "disabled"},
      {"user", OrElse(fields.Find("user"), nullptr)},
  };
  const std::string object = JsonText(repeated);
  return object.substr(1, object.size() - 2);
}

ResponseRequest ReadResponse(Fields& fields, std::string_view body) {
  RefuseForeign(fields);
  ResponseRequest request;
  GenerationParams& params = request.params;
  params.stream_repeats = true;
  params.max_tokens_name = "max_output_tokens";
  params.logprobs_name = "top_logprobs";
  ParseCommon(fields, params);
  params.max_tokens = ParseMaxTokens(fields, "max_output_tokens");
  params.structured = ParseStructuredOutput(fields, body, FormatMember::kText);
  ParseStreamOptions(fields, params);
  const auto instructions = fields.String("instructions");
  request.conversation = ParseInput(fields.Require("input", "a string or an array of items"));
  if (instructions) {
    auto& messages = request.conversation.messages;
    const ordered_json message = {{"role", "system"}, {"content", *instructions}};
    messages.insert(messages.begin(), message);
  }
  request.conversation.tools = ParseTools(fields, body, ToolShape::kFlat);
  HoldToCalls(request.conversation.tools, params.structured);
  request.conversation.template_variables = ParseTemplateVariables(fields, body, Turns::kInput);
  // Of built-in tools, of which there are none.
  fields.Integer("max_tool_calls", 0, std::numeric_limits<int32_t>::max());
  params.top_logprobs = ParseLogprobs(fields, request.conversation.tools);
  for (const char* name : {"user", "safety_identifier", "prompt_cache_key", "service_tier"}) {
    fields.String(name, 0, kMaxLabelLength);
  }
  json reasoning = ParseReasoning(fields);
  json metadata = OrElse(CheckMetadata(fields), json::object());
  fields.RefuseUnknown();
  request.repeated =
      Repeat(fields, params, std::move(metadata), std::move(reasoning), instructions);
  if (request.repeated.size() > kMaxRepeatedBytes) {
    ThrowApiError(
        instructions && instructions->size() > kMaxRepeatedBytes / 2 ? "instructions" : "tools",
        "invalid_value",
        fmt::format("'instructions', 'tools', 'metadata' and the other parameters that "
                    "every answer repeats may have {} bytes together, not {}: send long "
                    "texts in 'input'",
                    kMaxRepeatedBytes, request.repeated.size()));
  }
  return request;
}

}  // namespace

ApiResult<ResponseRequest> ParseResponseRequest(std::string_view body,
                                                std::set<std::string>* known) {
  return ParseBody<ResponseRequest>(body, ReadResponse, known);
}

}  // namespace quern::server
