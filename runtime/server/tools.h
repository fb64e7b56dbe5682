#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/constraints/constraint_spec.h"
#include "runtime/server/fields.h"
#include "runtime/server/structured_output.h"

namespace quern::server {

constexpr size_t kMaxTools = 128;         // as OpenAI
constexpr size_t kMaxToolNameBytes = 64;  // as OpenAI
constexpr size_t kMaxToolMembers = 1000;  // of one object in `tools` or in arguments
constexpr size_t kMaxToolCalls = 128;     // of one message
// Of all calls of a conversation: their text is JSON again, which grows when it is read.
constexpr size_t kMaxArgumentBytes = 512 * 1024;
constexpr int kMaxForcedToolCalls = 8;  // of an answer that must call

// What a chat request says of functions that the model may call.
struct ToolUse {
  enum class Choice {
    kAuto,      // the model decides
    kRequired,  // it must call at least one
  };
  // `tools` in a chat's shape, else as they were sent, in their own order: for the prompt.
  nlohmann::ordered_json tools;
  // Names of those that may be called, and the JSON schemas of their arguments, side by side.
  std::vector<std::string> names;
  std::vector<std::string> schemas;
  Choice choice = Choice::kAuto;
  bool parallel = true;  // more than one call in an answer
};

// How an API writes a function down.
enum class ToolShape {
  kNested,  // chats: {"type": "function", "function": {"name": ...}}
  kFlat,    // responses: {"type": "function", "name": ...}
};

// Reads `tools`, `tool_choice` and `parallel_tool_calls`. Nothing: there are none, or none may be
// used. Throws ApiException. `body`: what `fields` was parsed from.
std::optional<ToolUse> ParseTools(Fields& fields, std::string_view body, ToolShape shape);

// Reads `tool_calls` of an assistant's message, OpenAI's, into what a chat template takes: the same
// with the arguments as an object, its members in the order in which the model wrote them. Null: it
// has none. Throws ApiException. `argument_bytes`: of the conversation so far, counted up.
nlohmann::ordered_json ParseToolCalls(Fields& message, size_t& argument_bytes);

// The name and the arguments of one call, OpenAI's members `name` and `arguments` of `function`, as
// a chat template takes them. Throws and counts as ParseToolCalls.
nlohmann::ordered_json ParseCalledFunction(Fields& function, size_t& argument_bytes);

// What an answer looks like that must call: one function, or up to kMaxForcedToolCalls.
ConstraintSpec ToolCallGrammar(const ToolUse& tools);

// An answer that must call keeps to the format of calls, and can keep to no other: `structured` is
// set, or ApiException thrown.
void HoldToCalls(const std::optional<ToolUse>& tools, std::optional<StructuredOutput>& structured);

}  // namespace quern::server
