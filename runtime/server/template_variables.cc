#include "runtime/server/template_variables.h"

#include <fmt/format.h>

#include <algorithm>

#include "runtime/server/json_text.h"
#include "runtime/server/structured_output.h"
#include "runtime/server/tools.h"

namespace quern::server {
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr char kName[] = "chat_template_kwargs";

bool IsVariableName(std::string_view text) {
  return !text.empty() && text.size() <= kMaxToolNameBytes && !(text[0] >= '0' && text[0] <= '9') &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_';
         });
}

// What to do with a name that is not the request's to set; null: it is.
const char* AdviceIfTaken(std::string_view name, Turns turns) {
  const bool as_input = turns == Turns::kInput;
  if (name == "tools") return "the request itself has: send it there";
  if (name == "messages") {
    return as_input ? "a response has from its 'input': send it there"
                    : "the request itself has: send it there";
  }
  if (name == "add_generation_prompt") {
    return as_input ? "a response always has as true: leave it out"
                    : "the request itself has: send it there";
  }
  return nullptr;
}

}  // namespace

ordered_json ParseTemplateVariables(Fields& fields, std::string_view body, Turns turns) {
  const json* given = fields.Find(kName);
  if (given == nullptr) return nullptr;
  if (!given->is_object()) fields.WrongType(kName, "an object of names and values", *given);
  if (given->size() > kMaxTemplateVariables) {
    ThrowApiError(kName, "invalid_value",
                  fmt::format("'{}' may have at most {} names, not {}", kName,
                              kMaxTemplateVariables, given->size()));
  }
  for (const auto& [name, value] : given->items()) {
    const char* taken = AdviceIfTaken(name, turns);
    if (taken || !IsVariableName(name)) {
      ThrowApiError(kName, "invalid_value",
                    fmt::format("'{}' names {}, which {}", kName, Shown(json(name)),
                                taken ? taken : "is no name of 1 to 64 letters, digits or '_'"));
    }
  }
  if (const size_t bytes = JsonText(*given).size(); bytes > kMaxTemplateVariableBytes) {
    ThrowApiError(kName, "invalid_value",
                  fmt::format("'{}' may have at most {} bytes, not {}", kName,
                              kMaxTemplateVariableBytes, bytes));
  }
  // In the order in which they are written, but for names with escapes.
  ordered_json ordered = ParseInOrder(RawMember(body, kName), kMaxToolMembers);
  return json(ordered) == *given ? ordered : ordered_json(*given);
}

}  // namespace quern::server
