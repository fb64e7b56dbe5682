#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/formats/gguf.h"

namespace quern {

// The chat templates of a model as its files have them, not parsed yet, and the special tokens that
// they may write.
struct ChatTemplateSource {
  // The name of the only template, or of the one among several that is meant when none is named.
  static constexpr std::string_view kDefault = "default";
  // The one that is taken instead of it for a conversation with tools, as transformers does.
  static constexpr std::string_view kToolUse = "tool_use";

  std::string file;                                            // for messages
  std::vector<std::pair<std::string, std::string>> templates;  // name and Jinja text
  // The names that templates have for them, and their texts: {"bos_token", "<s>"}.
  std::vector<std::pair<std::string, std::string>> tokens;
};

// From `tokenizer.chat_template`, those named behind it (`tokenizer.chat_template.tool_use`), and
// the token ids. A base model has no templates: `templates` is empty.
Result<ChatTemplateSource> ChatTemplateSourceOf(const GgufFile& file);

inline constexpr size_t kMaxChatTemplateFileBytes = size_t{16} << 20;

// The same from a file as it lies beside a model on Hugging Face's hub: a template itself
// (chat_template.jinja), or a JSON file with the member `chat_template`, a string or a list of
// {name, template}, and the texts of the tokens (tokenizer_config.json). Its content tells which it
// is. Tokens that it does not speak of are those of `model`. An error names the file, what is wrong
// and what would be right.
Result<ChatTemplateSource> ReadChatTemplateFile(const std::string& path,
                                                const ChatTemplateSource& model);
// The same of its bytes. Pure.
Result<ChatTemplateSource> ParseChatTemplateFile(std::string_view bytes, const std::string& path,
                                                 const ChatTemplateSource& model);

}  // namespace quern
