#include "runtime/server/tools.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/server/json_text.h"
#include "runtime/server/structured_output.h"
#include "runtime/server/tool_call_stream.h"

namespace quern::server {
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr char kTypeIsFunction[] = "\"function\", the only kind of tool that there is";

bool IsName(std::string_view text) {
  return !text.empty() && text.size() <= kMaxToolNameBytes &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-';
         });
}

void RequireFunctionType(Fields& fields) {
  const json& type = fields.Require("type", kTypeIsFunction);
  if (type == "function") return;
  ThrowApiError(
      fields.Path("type"), "unsupported_parameter",
      fmt::format("'{}' must be {}, not {}", fields.Path("type"), kTypeIsFunction, Shown(type)));
}

std::string RequireName(Fields& fields) {
  const json& value = fields.Require("name", "a function's name");
  if (!value.is_string() || !IsName(value.get_ref<const std::string&>())) {
    ThrowApiError(fields.Path("name"), "invalid_value",
                  fmt::format("'{}' must be 1 to {} letters, digits, '_' or '-', not {}",
                              fields.Path("name"), kMaxToolNameBytes, Shown(value)));
  }
  return value.get<std::string>();
}

// The name in {"type": "function", "function": {"name": ...}}, or in the flat {"type": "function",
// "name": ...}, which must be one of `tools`.
std::string RequireChosen(Fields& choice, const ToolUse& tools, ToolShape shape) {
  RequireFunctionType(choice);
  const auto known = [&](Fields& function) {
    std::string name = RequireName(function);
    function.RefuseUnknown();
    if (std::find(tools.names.begin(), tools.names.end(), name) == tools.names.end()) {
      ThrowApiError(
          function.Path("name"), "invalid_value",
          fmt::format("'{}' is \"{}\", which is none of 'tools'", function.Path("name"), name));
    }
    return name;
  };
  if (shape == ToolShape::kFlat) return known(choice);
  Fields function(choice.Require("function", "an object with 'name'"), choice.Path("function"));
  choice.RefuseUnknown();
  return known(function);
}

// `list`, in the order in which the client wrote it; not where what it wrote is not what was read:
// names with escapes.
ordered_json InOrder(const json& list, std::string_view raw) {
  ordered_json ordered = ParseInOrder(raw, kMaxToolMembers);
  return json(ordered) == list ? ordered : ordered_json(list);
}

// The schema of a function's arguments, of which calls have an object; `ordered` is the function as
// it was written. Blanks between its parts are
// bounded: a model may else go on with them for ever.
std::string SchemaOf(const json* parameters, const ordered_json& ordered, Fields& function) {
  ordered_json schema = {{"type", "object"}};
  if (parameters == nullptr) {
    schema["properties"] = ordered_json::object();
    schema["additionalProperties"] = false;
  } else if (!parameters->is_object()) {
    function.WrongType("parameters", "a JSON schema of an object", *parameters);
  } else {
    schema.update(ordered.at("parameters"));
  }
  const std::string path = function.Path("parameters");
  if (schema["type"] != "object") {
    ThrowApiError(path + ".type", "invalid_value",
                  fmt::format("'{}.type' must be \"object\", not {}: a function's arguments have "
                              "names",
                              path, Shown(schema["type"])));
  }
  if (!schema.contains("x-guidance")) schema["x-guidance"] = {{"whitespace_pattern", "[ ]?"}};
  std::string text = JsonText(schema);
  const Status status = CheckConstraintSpec({ConstraintSpec::Kind::kJsonSchema, text});
  if (!status.ok()) ThrowApiError(path, "invalid_value", status.error().message);
  return text;
}

void ReadFunction(Fields& function, const ordered_json& ordered, ToolUse& tools) {
  std::string name = RequireName(function);
  if (std::find(tools.names.begin(), tools.names.end(), name) != tools.names.end()) {
    ThrowApiError(function.Path("name"), "invalid_value",
                  fmt::format("'{}' is \"{}\", as another tool's: names must differ",
                              function.Path("name"), name));
  }
  function.String("description");
  function.Bool("strict");  // a call that must be made always keeps to its schema
  std::string schema = SchemaOf(function.Find("parameters"), ordered, function);
  function.RefuseUnknown();
  tools.names.push_back(std::move(name));
  tools.schemas.push_back(std::move(schema));
}

// Reads `value`, which `ordered` has in the order of its text, and makes that a chat's.
void ReadTool(const json& value, ordered_json& ordered, size_t index, ToolShape shape,
              ToolUse& tools) {
  Fields tool(value, fmt::format("tools[{}]", index));
  RequireFunctionType(tool);
  if (shape == ToolShape::kFlat) {
    tool.OnlyNeutral("function", {}, "that is a chat's; write its members beside 'type'");
    tool.OnlyNeutral("defer_loading", {false});
    tool.OnlyNeutral("async", {false});
    tool.OnlyNeutral("allowed_callers", {json::array({"direct"})});
    tool.OnlyNeutral("output_schema", {});
    ReadFunction(tool, ordered, tools);
    for (const char* other :
         {"type", "function", "defer_loading", "async", "allowed_callers", "output_schema"}) {
      ordered.erase(other);
    }
    ordered = {{"type", "function"}, {"function", std::move(ordered)}};
    return;
  }
  Fields function(tool.Require("function", "an object with 'name' and 'parameters'"),
                  tool.Path("function"));
  tool.RefuseUnknown();
  ReadFunction(function, ordered.at("function"), tools);
}

// Only the tools of `names` may be called.
void Narrow(ToolUse& tools, const std::vector<std::string>& names) {
  for (size_t i = tools.names.size(); i-- > 0;) {
    if (std::find(names.begin(), names.end(), tools.names[i]) != names.end()) continue;
    tools.names.erase(tools.names.begin() + static_cast<std::ptrdiff_t>(i));
    tools.schemas.erase(tools.schemas.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

constexpr char kChoices[] =
    "\"none\", \"auto\", \"required\", or an object that names a function or 'allowed_tools'";

ToolUse::Choice ReadMode(const std::string& path, const json& value) {
  if (value == "auto") return ToolUse::Choice::kAuto;
  if (value == "required") return ToolUse::Choice::kRequired;
  ThrowApiError(path, "invalid_value",
                fmt::format("'{}' must be \"auto\" or \"required\", not {}", path, Shown(value)));
}

// `allowed`: the object with 'mode' and 'tools'.
void ReadAllowed(Fields& allowed, ToolShape shape, ToolUse& tools) {
  tools.choice =
      ReadMode(allowed.Path("mode"), allowed.Require("mode", "\"auto\" or \"required\""));
  const json& list = allowed.Require("tools", "an array of functions' names");
  if (!list.is_array() || list.empty()) {
    allowed.WrongType("tools", "an array of at least one function", list);
  }
  std::vector<std::string> names;
  for (size_t i = 0; i < list.size(); ++i) {
    Fields one(list[i], fmt::format("{}[{}]", allowed.Path("tools"), i));
    names.push_back(RequireChosen(one, tools, shape));
  }
  allowed.RefuseUnknown();
  Narrow(tools, names);
}

// False: no tool may be called.
bool ReadChoice(const json& value, ToolShape shape, ToolUse& tools) {
  if (value == "none") return false;
  if (value == "auto") return true;
  if (value == "required") {
    tools.choice = ToolUse::Choice::kRequired;
    return true;
  }
  if (!value.is_object()) {
    ThrowApiError("tool_choice", value.is_string() ? "invalid_value" : "invalid_type",
                  fmt::format("'tool_choice' must be {}, not {}", kChoices, Shown(value)));
  }
  Fields choice(value, "tool_choice");
  if (value.value("type", json()) == "allowed_tools") {
    choice.Ignore({"type"});
    if (shape == ToolShape::kFlat) {
      ReadAllowed(choice, shape, tools);
    } else {
      Fields allowed(choice.Require("allowed_tools", "an object with 'mode' and 'tools'"),
                     choice.Path("allowed_tools"));
      choice.RefuseUnknown();
      ReadAllowed(allowed, shape, tools);
    }
    return true;
  }
  Narrow(tools, {RequireChosen(choice, tools, shape)});
  tools.choice = ToolUse::Choice::kRequired;
  tools.parallel = false;
  return true;
}

ordered_json ParseArguments(const std::string& text, const std::string& path,
                            size_t& argument_bytes) {
  argument_bytes += text.size();
  if (argument_bytes > kMaxArgumentBytes) {
    ThrowApiError(path, "invalid_value",
                  fmt::format("the arguments of the conversation's tool calls have more than {} "
                              "bytes, at '{}'",
                              kMaxArgumentBytes, path));
  }
  if (text.empty()) return ordered_json::object();  // some clients write none so
  json arguments;
  try {
    arguments = ParseJsonObject(text);
  } catch (ApiException&) {
    ThrowApiError(path, "invalid_value",
                  fmt::format("'{}' must be the text of a JSON object, at most {} levels deep, "
                              "such as \"{{\\\"city\\\": \\\"Paris\\\"}}\"",
                              path, kMaxJsonDepth));
  }
  if (MostMembers(arguments) > kMaxToolMembers) {
    ThrowApiError(path, "invalid_value",
                  fmt::format("an object in '{}' has more than {} members", path, kMaxToolMembers));
  }
  return ParseInOrder(text, kMaxToolMembers);
}

ordered_json ReadToolCall(const json& value, const std::string& path, size_t& argument_bytes) {
  Fields call(value, path);
  RequireFunctionType(call);
  const std::string id = call.String("id").value_or("");
  call.Integer("index", 0, kInt32Max);  // streams' clients leave it in
  Fields function(call.Require("function", "an object with 'name' and 'arguments'"),
                  call.Path("function"));
  ordered_json called = ParseCalledFunction(function, argument_bytes);
  function.RefuseUnknown();
  call.RefuseUnknown();
  return {{"id", id}, {"type", "function"}, {"function", std::move(called)}};
}

}  // namespace

std::optional<ToolUse> ParseTools(Fields& fields, std::string_view body, ToolShape shape) {
  const json* choice = fields.Find("tool_choice");
  const auto parallel = fields.Bool("parallel_tool_calls");
  const json* list = fields.Find("tools");
  if (list == nullptr || (list->is_array() && list->empty())) {
    if (choice != nullptr && *choice != "none" && *choice != "auto") {
      ThrowApiError("tool_choice", "invalid_value",
                    "'tool_choice' asks for a call, but there are no 'tools'");
    }
    return std::nullopt;
  }
  if (!list->is_array()) fields.WrongType("tools", "an array of tools", *list);
  if (list->size() > kMaxTools) {
    ThrowApiError(
        "tools", "invalid_value",
        fmt::format("'tools' may have at most {} entries, not {}", kMaxTools, list->size()));
  }
  if (MostMembers(*list) > kMaxToolMembers) {
    ThrowApiError("tools", "invalid_value",
                  fmt::format("an object in 'tools' has more than {} members", kMaxToolMembers));
  }
  ToolUse tools;
  tools.parallel = parallel.value_or(true);
  tools.tools = InOrder(*list, RawMember(body, "tools"));
  for (size_t i = 0; i < list->size(); ++i) {
    ReadTool((*list)[i], tools.tools[i], i, shape, tools);
  }
  if (choice != nullptr && !ReadChoice(*choice, shape, tools)) return std::nullopt;
  return tools;
}

ordered_json ParseCalledFunction(Fields& function, size_t& argument_bytes) {
  const std::string name = RequireName(function);
  const json& text = function.Require("arguments", "a JSON object, as text");
  if (!text.is_string()) function.WrongType("arguments", "the text of a JSON object", text);
  return {{"name", name},
          {"arguments", ParseArguments(text.get_ref<const std::string&>(),
                                       function.Path("arguments"), argument_bytes)}};
}

ordered_json ParseToolCalls(Fields& message, size_t& argument_bytes) {
  const json* list = message.Find("tool_calls");
  if (list == nullptr || (list->is_array() && list->empty())) return nullptr;
  if (!list->is_array()) message.WrongType("tool_calls", "an array of tool calls", *list);
  const std::string path = message.Path("tool_calls");
  if (list->size() > kMaxToolCalls) {
    ThrowApiError(
        path, "invalid_value",
        fmt::format("'{}' may have at most {} entries, not {}", path, kMaxToolCalls, list->size()));
  }
  ordered_json calls = ordered_json::array();
  for (size_t i = 0; i < list->size(); ++i) {
    calls.push_back(ReadToolCall((*list)[i], fmt::format("{}[{}]", path, i), argument_bytes));
  }
  return calls;
}

ConstraintSpec ToolCallGrammar(const ToolUse& tools) {
  std::string start = "start: call";
  if (tools.parallel) start += fmt::format(" (\"\\n\" call){{0,{}}}", kMaxForcedToolCalls - 1);
  std::string calls, rules;
  for (size_t i = 0; i < tools.names.size(); ++i) {
    calls += fmt::format("{} call_{}", i == 0 ? "call:" : " |", i);
    rules += fmt::format(
        "call_{0}: \"{1}\\n{{\\\"name\\\": \\\"{2}\\\", \\\"arguments\\\": \" args_{0} "
        "\"}}\\n{3}\"\n"
        "args_{0}: %json {4}\n",
        i, kToolCallOpen, tools.names[i], kToolCallClose, tools.schemas[i]);
  }
  return {ConstraintSpec::Kind::kToolCalls, start + "\n" + calls + "\n" + rules};
}

void HoldToCalls(const std::optional<ToolUse>& tools, std::optional<StructuredOutput>& structured) {
  if (!tools || tools->choice != ToolUse::Choice::kRequired) return;
  if (structured) {
    ThrowApiError(structured->param, "invalid_value",
                  fmt::format("'{}' and a 'tool_choice' that asks for a call exclude each other: "
                              "the answer is either in that format or a call",
                              structured->param));
  }
  structured = {ToolCallGrammar(*tools), "tools"};
}

}  // namespace quern::server
