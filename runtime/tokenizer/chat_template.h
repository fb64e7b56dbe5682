#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "runtime/base/clock.h"
#include "runtime/base/result.h"
#include "runtime/tokenizer/chat_template_source.h"

namespace quern {

// A conversation as a chat template takes it. What it refers to outlives it.
struct TemplateInput {
  // OpenAI's array of {role, content, ...}, content already flattened to a string, arguments of
  // `tool_calls` as objects.
  const nlohmann::ordered_json& messages;
  const nlohmann::ordered_json& tools;  // OpenAI's, in their order; null: none
  bool add_generation_prompt = true;
  // An object: further names that the template sees, such as enable_thinking; null: none.
  const nlohmann::ordered_json* variables = nullptr;
};

// A model's own Jinja chat template, parsed once. Immutable, thread-safe; rendering has bounded
// steps and output.
class ChatTemplate {
 public:
  // The template of this name, or, for "", the default one and with it `tool_use`, if there is one,
  // for conversations with tools; a `tool_use` that cannot be parsed is left out, and said by
  // LeftOut(). kNotFound if there is none; the message names those that there
  // are. kUnsupported names the construct and line of the template that the interpreter does not
  // know. `clock`: of strftime_now(); outlives the template.
  static Result<std::unique_ptr<ChatTemplate>> Make(const ChatTemplateSource& source,
                                                    std::string_view name = "",
                                                    const Clock& clock = RealClock());
  virtual ~ChatTemplate() = default;

  // Why the source's template for conversations with tools is not used: one line that names it;
  // null: it is, or there is none.
  virtual const Error* LeftOut() const { return nullptr; }

  // The template's own raise_exception() comes back as kInvalidArgument with its text.
  virtual Result<std::string> Render(const TemplateInput& input) const = 0;

  // Whether the template for conversations with or without tools describes tools itself and has
  // calls written between <tool_call> and </tool_call>, as Hermes' and Qwen's do.
  virtual bool KnowsToolCalls(bool with_tools) const = 0;
};

}  // namespace quern
