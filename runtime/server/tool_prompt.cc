#include "runtime/server/tool_prompt.h"

#include <fmt/format.h>

#include <string>

#include "runtime/server/json_text.h"
#include "runtime/server/tool_call_stream.h"

namespace quern::server {
using nlohmann::ordered_json;

namespace {

// The models that call functions at all have mostly been trained on descriptions like this one.
std::string Describe(const ordered_json& tools) {
  std::string text =
      "# Tools\n\nYou may call functions to help with what the user asks. Each line between the "
      "tags is one of them, with its parameters as a JSON schema:\n<tools>\n";
  for (const ordered_json& tool : tools) text += JsonText(tool) + '\n';
  return text + fmt::format(
                    "</tools>\n\nTo call a function, answer with its name and its arguments as "
                    "JSON between these tags, one pair for each call:\n{}\n"
                    R"({{"name": "<function>", "arguments": {{<arguments>}}}})"
                    "\n{}",
                    kToolCallOpen, kToolCallClose);
}

std::string WriteCalls(const ordered_json& message) {
  std::string text = message.at("content").get<std::string>();
  for (const ordered_json& call : message.at("tool_calls")) {
    if (!text.empty()) text += '\n';
    text += fmt::format("{}\n{{\"name\": {}, \"arguments\": {}}}\n{}", kToolCallOpen,
                        JsonText(call.at("function").at("name")),
                        JsonText(call.at("function").at("arguments")), kToolCallClose);
  }
  return text;
}

}  // namespace

ordered_json WriteToolsAsText(const ordered_json& messages, const ordered_json& tools) {
  ordered_json written = ordered_json::array();
  if (!tools.is_null() && (messages.empty() || messages[0].at("role") != "system")) {
    written.push_back({{"role", "system"}, {"content", Describe(tools)}});
  }
  bool answers = false;  // the last message has what functions returned
  for (const ordered_json& message : messages) {
    const bool is_answer = message.at("role") == "tool";
    if (is_answer) {
      const std::string text = fmt::format("<tool_response>\n{}\n</tool_response>",
                                           message.at("content").get_ref<const std::string&>());
      if (answers) {
        auto& before = written.back().at("content").get_ref<std::string&>();
        before += '\n' + text;
      } else {
        written.push_back({{"role", "user"}, {"content", text}});
      }
    } else if (message.contains("tool_calls")) {
      written.push_back({{"role", "assistant"}, {"content", WriteCalls(message)}});
    } else if (!tools.is_null() && written.empty()) {  // the system message
      const auto& text = message.at("content").get_ref<const std::string&>();
      written.push_back(
          {{"role", "system"}, {"content", (text.empty() ? "" : text + "\n\n") + Describe(tools)}});
    } else {
      written.push_back(message);
    }
    answers = is_answer;
  }
  return written;
}

}  // namespace quern::server
