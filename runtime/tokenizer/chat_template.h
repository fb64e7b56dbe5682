#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "runtime/base/result.h"
#include "runtime/formats/gguf.h"

namespace quern {

// A model's own Jinja chat template, parsed once. Immutable, thread-safe; rendering has bounded
// steps and output.
class ChatTemplate {
 public:
  // From `tokenizer.chat_template`. kNotFound if the model has none (a base model); kUnsupported
  // names the construct and line of the template that the interpreter does not know.
  static Result<std::unique_ptr<ChatTemplate>> FromGguf(const GgufFile& file);
  static Result<std::unique_ptr<ChatTemplate>> Parse(std::string_view source, std::string bos_text,
                                                     std::string eos_text);
  virtual ~ChatTemplate() = default;

  // `messages`: OpenAI's array of {role, content, ...}, content already flattened to a string,
  // arguments of `tool_calls` as objects. `tools`: OpenAI's, in their order; null: none. The
  // template's own raise_exception() comes back as kInvalidArgument with its text.
  virtual Result<std::string> Render(const nlohmann::ordered_json& messages,
                                     const nlohmann::ordered_json& tools,
                                     bool add_generation_prompt) const = 0;

  // Whether it describes tools itself and has calls written between <tool_call> and </tool_call>,
  // as Hermes' and Qwen's do.
  virtual bool knows_tool_calls() const = 0;
};

}  // namespace quern
