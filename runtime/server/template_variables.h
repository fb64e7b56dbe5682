#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "runtime/server/fields.h"

namespace quern::server {

constexpr size_t kMaxTemplateVariables = 64;
constexpr size_t kMaxTemplateVariableBytes = 64 * 1024;  // of all of them, as JSON

// What to do instead of naming an effort of reasoning, of which only templates know.
constexpr char kEffortAdvice[] = "set what the model's template asks for in 'chat_template_kwargs'";

// How a kind of request has what a template sees: a chat's `messages`, or a response's `input`.
enum class Turns { kMessages, kInput };

// Reads `chat_template_kwargs`, as vLLM has it: an object of further names that the chat template
// sees, such as enable_thinking, with any values. Null: none. Throws ApiException. `body`: what
// `fields` was parsed from.
nlohmann::ordered_json ParseTemplateVariables(Fields& fields, std::string_view body,
                                              Turns turns = Turns::kMessages);

}  // namespace quern::server
