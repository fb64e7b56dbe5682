#include "runtime/server/responses/response_input.h"

#include <fmt/format.h>

#include <set>
#include <string>

#include "runtime/server/fields.h"
#include "runtime/server/tools.h"

namespace quern::server {
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

std::string RequireString(Fields& item, const char* name, const char* what) {
  const json& value = item.Require(name, what);
  if (!value.is_string()) item.WrongType(name, "a string", value);
  return value.get<std::string>();
}

// A string, or an array of parts that are text.
std::string ReadText(const json& value, const std::string& path) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) {
    ThrowApiError(
        path, "invalid_type",
        fmt::format("'{}' must be a string or an array of text parts, not {}", path, Shown(value)));
  }
  std::string text;
  for (size_t i = 0; i < value.size(); ++i) {
    Fields part(value[i], fmt::format("{}[{}]", path, i));
    const std::string type = RequireString(part, "type", "\"input_text\" or \"output_text\"");
    if (type != "input_text" && type != "output_text") {
      ThrowApiError(
          part.Path("type"), "unsupported_parameter",
          fmt::format(
              "'{}' must be \"input_text\" or \"output_text\"{} \"{}\"", part.Path("type"),
              type == "text" ? ", not a chat's" : "; this model reads nothing else, such as",
              type.substr(0, 40)));
    }
    const json& piece = part.Require("text", "a string");
    if (!piece.is_string()) part.WrongType("text", "a string", piece);
    text += piece.get_ref<const std::string&>();
    // What an answer had beside its text, and what clients' helpers put there.
    part.IgnoreArray("annotations");
    part.IgnoreArray("logprobs");
    part.Ignore({"parsed"});
    part.OnlyNeutral("prompt_cache_breakpoint", {});
    part.RefuseUnknown();
  }
  return text;
}

class InputReader {
 public:
  Conversation Read(const json& items) {
    for (size_t i = 0; i < items.size(); ++i) {
      Fields item(items[i], fmt::format("input[{}]", i));
      ReadItem(item);
    }
    if (messages_.empty()) {
      ThrowApiError("input", "invalid_value", "'input' must have at least one message");
    }
    return {.messages = std::move(messages_), .has_calls = has_calls_, .tools = {}};
  }

 private:
  void ReadItem(Fields& item) {
    const std::string type = item.String("type").value_or("message");
    item.IgnoreStrings({"id", "status"});  // of an answer that comes back
    if (type == "reasoning") return;
    if (type == "message") {
      ReadMessage(item);
    } else if (type == "function_call") {
      ReadCall(item);
    } else if (type == "function_call_output") {
      ReadOutput(item);
    } else {
      ThrowApiError(
          item.Path("type"), "unsupported_parameter",
          fmt::format("'{}' must be \"message\", \"function_call\", "
                      "\"function_call_output\" or \"reasoning\"; this server has no \"{}\"{}",
                      item.Path("type"), type.substr(0, 40),
                      type == "item_reference"
                          ? ", for it keeps nothing: send the item itself, as some clients do only "
                            "with 'store': false"
                          : ""));
    }
    item.RefuseUnknown();
  }

  void ReadMessage(Fields& item) {
    constexpr char kRoles[] = "\"user\", \"assistant\", \"system\" or \"developer\"";
    std::string role = RequireString(item, "role", kRoles);
    if (role == "developer") role = "system";  // OpenAI's newer name for the same
    if (role != "system" && role != "user" && role != "assistant") {
      ThrowApiError(
          item.Path("role"), "invalid_value",
          fmt::format("'{}' must be {}, not \"{}\"{}", item.Path("role"), kRoles,
                      role.substr(0, 40),
                      role == "tool" ? "; what a function returned is an item of the type "
                                       "\"function_call_output\""
                                     : ""));
    }
    item.IgnoreStrings({"phase"});  // a label of OpenAI's models
    std::string text =
        ReadText(item.Require("content", "a string or an array of parts"), item.Path("content"));
    messages_.push_back({{"role", role}, {"content", std::move(text)}});
  }

  void ReadCall(Fields& item) {
    const std::string id = RequireString(item, "call_id", "the call's id");
    item.OnlyNeutral("caller", {{{"type", "direct"}}});
    item.OnlyNeutral("namespace", {});
    item.OnlyNeutral("async", {false});
    item.Ignore({"parsed_arguments"});  // of clients' helpers
    ordered_json called = ParseCalledFunction(item, argument_bytes_);
    if (messages_.empty() || messages_.back()["role"] != "assistant") {
      messages_.push_back({{"role", "assistant"}, {"content", ""}});
    }
    ordered_json& calls = messages_.back()["tool_calls"];
    if (calls.size() >= kMaxToolCalls) {
      ThrowApiError(item.Path("type"), "invalid_value",
                    fmt::format("at most {} calls may follow each other", kMaxToolCalls));
    }
    calls.push_back({{"id", id}, {"type", "function"}, {"function", std::move(called)}});
    ids_.insert(id);
    has_calls_ = true;
  }

  void ReadOutput(Fields& item) {
    const std::string id = RequireString(item, "call_id", "the id of the call that this answers");
    if (ids_.count(id) == 0) {
      ThrowApiError(
          item.Path("call_id"), "invalid_value",
          fmt::format("'{}' is \"{}\", which is no \"function_call\" before it in 'input'",
                      item.Path("call_id"), id.substr(0, 80)));
    }
    item.OnlyNeutral("caller", {{{"type", "direct"}}});
    item.OnlyNeutral("namespace", {});
    item.IgnoreStrings({"name"});
    std::string text =
        ReadText(item.Require("output", "a string or an array of parts"), item.Path("output"));
    messages_.push_back({{"role", "tool"}, {"tool_call_id", id}, {"content", std::move(text)}});
  }

  ordered_json messages_ = ordered_json::array();
  bool has_calls_ = false;
  size_t argument_bytes_ = 0;
  std::set<std::string> ids_;  // of the calls so far
};

}  // namespace

Conversation ParseInput(const json& input) {
  if (input.is_string()) {
    return {.messages =
                ordered_json::array({{{"role", "user"}, {"content", input.get<std::string>()}}}),
            .tools = {}};
  }
  if (!input.is_array()) {
    ThrowApiError(
        "input", "invalid_type",
        fmt::format("'input' must be a string or an array of items, not {}", Shown(input)));
  }
  return InputReader().Read(input);
}

}  // namespace quern::server
