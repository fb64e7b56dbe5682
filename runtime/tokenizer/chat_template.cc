#include "runtime/tokenizer/chat_template.h"

#include <exception>
#include <new>
#include <optional>

#include "runtime/tokenizer/jinja/interpreter.h"
#include "runtime/tokenizer/jinja/parser.h"
#include "runtime/tokenizer/utf8.h"

namespace quern {
namespace {

constexpr size_t kMaxTemplateBytes = 1 << 20;

constexpr size_t kMaxMessageBytes = 2048;

// A template's message may be any text: it is cut where a character begins.
std::string Shortened(std::string message) {
  if (message.size() <= kMaxMessageBytes) return message;
  size_t length = kMaxMessageBytes;
  while (length > 0 && (static_cast<uint8_t>(message[length]) & 0xc0) == 0x80) --length;
  message.resize(length);
  return message + "\u2026";
}

struct Parsed {
  jinja::Body body;
  bool knows_tool_calls = false;
};

class JinjaChatTemplate final : public ChatTemplate {
 public:
  JinjaChatTemplate(Parsed plain, std::optional<Parsed> with_tools, std::optional<Error> left_out,
                    std::vector<std::pair<std::string, std::string>> tokens, const Clock& clock)
      : plain_(std::move(plain)),
        with_tools_(std::move(with_tools)),
        left_out_(std::move(left_out)),
        tokens_(std::move(tokens)),
        clock_(clock) {}

  const Error* LeftOut() const override { return left_out_ ? &*left_out_ : nullptr; }

  bool KnowsToolCalls(bool with_tools) const override {
    return Choose(with_tools).knows_tool_calls;
  }

  Result<std::string> Render(const TemplateInput& input) const override {
    if (!input.messages.is_array()) {
      return MakeError(ErrorCode::kInvalidArgument, "the messages must be an array, not {}",
                       input.messages.type_name());
    }
    try {
      // What Hugging Face's apply_chat_template gives a template, with no documents.
      jinja::Dict globals;
      for (const auto& [name, text] : tokens_) globals.emplace_back(name, jinja::Value::Text(text));
      if (input.variables) {
        for (const auto& [name, value] : input.variables->items())
          jinja::SetKey(globals, name, jinja::Value::FromJson(value));
      }
      jinja::SetKey(globals, "messages", jinja::Value::FromJson(input.messages));
      jinja::SetKey(globals, "add_generation_prompt",
                    jinja::Value::Bool(input.add_generation_prompt));
      jinja::SetKey(globals, "tools", jinja::Value::FromJson(input.tools));
      if (!jinja::FindKey(globals, "documents"))
        globals.emplace_back("documents", jinja::Value::OfNone());
      return jinja::Interpreter(globals, jinja::Limits(), clock_.WallNow())
          .Render(Choose(!input.tools.is_null()).body);
    } catch (jinja::TemplateError& failure) {
      failure.error.message = Shortened(std::move(failure.error.message));
      return std::move(failure.error);
    } catch (const std::bad_alloc&) {
      return MakeError(ErrorCode::kResourceExhausted, "chat template: there is no memory for it");
    } catch (const std::exception& failure) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "the chat template cannot take this conversation: {}",
                       Shortened(failure.what()));
    }
  }

 private:
  const Parsed& Choose(bool with_tools) const {
    return with_tools && with_tools_ ? *with_tools_ : plain_;
  }

  const Parsed plain_;
  const std::optional<Parsed> with_tools_;
  const std::optional<Error> left_out_;
  const std::vector<std::pair<std::string, std::string>> tokens_;
  const Clock& clock_;
};

Result<Parsed> ParseOne(const ChatTemplateSource& source, const std::string& name,
                        std::string_view text) {
  const bool only = source.templates.size() == 1;
  const std::string where =
      only ? source.file : fmt::format("{}: the template '{}'", source.file, name);
  if (text.size() > kMaxTemplateBytes) {
    return MakeError(ErrorCode::kUnsupported,
                     "{}: the chat template is {} bytes long: at most {} are supported", where,
                     text.size(), kMaxTemplateBytes);
  }
  if (const auto at = FindInvalidUtf8(text)) {
    return MakeError(ErrorCode::kDataLoss, "{}: the chat template is not valid UTF-8 at byte {}",
                     where, *at);
  }
  try {
    return Parsed{jinja::Parse(text),
                  text.find("tools") != text.npos && text.find("<tool_call>") != text.npos};
  } catch (jinja::TemplateError& failure) {
    return std::move(failure.error).Within(where);
  }
}

const std::pair<std::string, std::string>* Find(const ChatTemplateSource& source,
                                                std::string_view name) {
  for (const auto& one : source.templates) {
    if (one.first == name) return &one;
  }
  return nullptr;
}

Error NotThere(const ChatTemplateSource& source, std::string_view name) {
  if (source.templates.empty()) {
    return MakeError(
        ErrorCode::kNotFound,
        "{}: the model has no chat template (tokenizer.chat_template): it is a base model, which "
        "completes text; use /v1/completions",
        source.file);
  }
  std::string names;
  for (const auto& one : source.templates) {
    names += fmt::format("{}'{}'", names.empty() ? "" : ", ", one.first.substr(0, 80));
  }
  return MakeError(ErrorCode::kNotFound,
                   "{}: there is no chat template named '{}', but {}: choose with "
                   "--chat-template-name",
                   source.file, name.substr(0, 80), names);
}

}  // namespace

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::Make(const ChatTemplateSource& source,
                                                         std::string_view name,
                                                         const Clock& clock) {
  const std::string_view wanted = name.empty() ? ChatTemplateSource::kDefault : name;
  const auto* plain = Find(source, wanted);
  if (!plain) return NotThere(source, wanted);
  QUERN_ASSIGN(Parsed parsed, ParseOne(source, plain->first, plain->second));
  std::optional<Parsed> with_tools;
  std::optional<Error> left_out;
  const auto* tool_use = name.empty() ? Find(source, ChatTemplateSource::kToolUse) : nullptr;
  if (tool_use) {
    auto made = ParseOne(source, tool_use->first, tool_use->second);
    if (made) {
      with_tools = std::move(made).value();
    } else {
      left_out = std::move(made).error();
    }
  }
  return std::unique_ptr<ChatTemplate>(std::make_unique<JinjaChatTemplate>(
      std::move(parsed), std::move(with_tools), std::move(left_out), source.tokens, clock));
}

}  // namespace quern
