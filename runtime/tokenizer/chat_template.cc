#include "runtime/tokenizer/chat_template.h"

#include "runtime/tokenizer/jinja/interpreter.h"
#include "runtime/tokenizer/jinja/parser.h"
#include "runtime/tokenizer/utf8.h"

namespace quern {
namespace {

constexpr size_t kMaxTemplateBytes = 1 << 20;

class JinjaChatTemplate final : public ChatTemplate {
 public:
  JinjaChatTemplate(jinja::Body body, std::string bos_text, std::string eos_text,
                    bool knows_tool_calls)
      : body_(std::move(body)),
        bos_text_(std::move(bos_text)),
        eos_text_(std::move(eos_text)),
        knows_tool_calls_(knows_tool_calls) {}

  bool knows_tool_calls() const override { return knows_tool_calls_; }

  Result<std::string> Render(const nlohmann::ordered_json& messages,
                             const nlohmann::ordered_json& tools,
                             bool add_generation_prompt) const override {
    if (!messages.is_array()) {
      return MakeError(ErrorCode::kInvalidArgument, "the messages must be an array, not {}",
                       messages.type_name());
    }
    try {
      // What Hugging Face's apply_chat_template gives a template, with no documents.
      jinja::Dict globals = {{"messages", jinja::Value::FromJson(messages)},
                             {"add_generation_prompt", jinja::Value::Bool(add_generation_prompt)},
                             {"bos_token", jinja::Value::Text(bos_text_)},
                             {"eos_token", jinja::Value::Text(eos_text_)},
                             {"tools", jinja::Value::FromJson(tools)},
                             {"documents", jinja::Value::OfNone()}};
      return jinja::Interpreter(globals, jinja::Limits()).Render(body_);
    } catch (jinja::TemplateError& failure) {
      return std::move(failure.error);
    }
  }

 private:
  const jinja::Body body_;
  const std::string bos_text_;
  const std::string eos_text_;
  const bool knows_tool_calls_;
};

// The text of the token that a metadata key names; empty if there is none.
Result<std::string> TokenText(const GgufFile& file, const char* key) {
  const auto id = file.FindUint(key);
  if (!id) return std::string();
  const auto tokens = file.FindStringArray("tokenizer.ggml.tokens");
  if (!tokens || *id >= tokens->size()) {
    return MakeError(ErrorCode::kDataLoss, "{}: {} is {}, which is no token", file.path(), key,
                     *id);
  }
  return std::string((*tokens)[*id]);
}

}  // namespace

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(std::string_view source,
                                                          std::string bos_text,
                                                          std::string eos_text) {
  if (source.size() > kMaxTemplateBytes) {
    return MakeError(ErrorCode::kUnsupported,
                     "the chat template is {} bytes long: at most {} are supported", source.size(),
                     kMaxTemplateBytes);
  }
  if (const auto at = FindInvalidUtf8(source)) {
    return MakeError(ErrorCode::kDataLoss, "the chat template is not valid UTF-8 at byte {}", *at);
  }
  try {
    return std::unique_ptr<ChatTemplate>(std::make_unique<JinjaChatTemplate>(
        jinja::Parse(source), std::move(bos_text), std::move(eos_text),
        source.find("tools") != source.npos && source.find("<tool_call>") != source.npos));
  } catch (jinja::TemplateError& failure) {
    return std::move(failure.error);
  }
}

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::FromGguf(const GgufFile& file) {
  const auto source = file.FindString("tokenizer.chat_template");
  if (!source) {
    return MakeError(
        ErrorCode::kNotFound,
        "{}: the model has no chat template (tokenizer.chat_template): it is a base model, which "
        "completes text; use /v1/completions",
        file.path());
  }
  QUERN_ASSIGN(std::string bos, TokenText(file, "tokenizer.ggml.bos_token_id"));
  QUERN_ASSIGN(std::string eos, TokenText(file, "tokenizer.ggml.eos_token_id"));
  auto parsed = Parse(*source, std::move(bos), std::move(eos));
  if (!parsed) return std::move(parsed).error().Within(file.path());
  return parsed;
}

}  // namespace quern
